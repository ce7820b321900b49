package node

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// kernel answers, in the place of this machine's, the calls that load a module or ask for the release. Nothing else of a host's modprobe
// is replaced. Its rules are Linux's (kernel/module/main.c): what is loaded, what a module needs, module_blacklist=, modules_disabled,
// capabilities, signatures under lockdown and vermagic. What a security module or a broken file would say comes from errno.
type kernel struct {
	t      *testing.T
	root   string // the host's
	errors map[string]syscall.Errno
	asked  []string // the modules, in order, whatever came of them
}

// listen starts command with its file descriptor 3 for contain's ask, and returns what to call when it has ended.
func (k *kernel) listen(command *exec.Cmd) (ended func()) {
	k.t.Helper()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	require.NoError(k.t, err)
	theirs := os.NewFile(uintptr(pair[1]), "kernel")
	command.ExtraFiles = []*os.File{theirs}
	over, done := make(chan struct{}), make(chan error, 1)
	go func() {
		defer syscall.Close(pair[0])
		done <- k.serve(pair[0], over)
	}()
	return func() {
		k.t.Helper()
		_ = theirs.Close()
		close(over)
		require.NoError(k.t, <-done)
	}
}

// ready waits until a descriptor has something to read. False: it never will, or the command is over.
func ready(fd int, over <-chan struct{}) bool {
	type pollFd struct {
		fd              int32
		events, revents int16
	}
	const in, hungUp = 1, 16
	for {
		poll := pollFd{fd: int32(fd), events: in}
		limit := syscall.Timespec{Nsec: int64(50 * time.Millisecond)}
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
		switch {
		case errno != 0 && errno != syscall.EINTR:
			return false
		case n == 1 && errno == 0:
			return poll.revents&in != 0 || poll.revents&hungUp == 0
		}
		select {
		case <-over:
			return false
		default:
		}
	}
}

// notification and response are seccomp_notif and seccomp_notif_resp of linux/seccomp.h.
type notification struct {
	id         uint64
	pid, flags uint32
	call, arch uint32
	pointer    uint64
	arguments  [6]uint64
}

type response struct {
	id           uint64
	value        int64
	error, flags int32
}

func (k *kernel) serve(socket int, over <-chan struct{}) error {
	if !ready(socket, over) {
		return nil // it has not come so far
	}
	message, control := make([]byte, 64), make([]byte, syscall.CmsgSpace(4))
	n, controls, _, _, err := syscall.Recvmsg(socket, message, control, 0)
	if err != nil || n == 0 {
		return err
	}
	var initModule, finitModule, uname uint32
	if _, err = fmt.Sscan(string(message[:n]), &initModule, &finitModule, &uname); err != nil {
		return err
	}
	received, err := syscall.ParseSocketControlMessage(control[:controls])
	if err != nil {
		return err
	}
	fds, err := syscall.ParseUnixRights(&received[0])
	if err != nil {
		return err
	}
	defer syscall.Close(fds[0])
	const receive, send = 0xC0502100, 0xC0182101
	for ready(fds[0], over) {
		var asked notification
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fds[0]), receive, uintptr(unsafe.Pointer(&asked))); errno != 0 {
			if errno == syscall.ENOENT || errno == syscall.EINTR { // it was killed meanwhile
				continue
			}
			return errno
		}
		given := response{id: asked.id}
		switch asked.call {
		case uname:
			given.error = -int32(k.uname(asked))
		case initModule, finitModule:
			given.error = -int32(k.load(asked, asked.call == finitModule))
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fds[0]), send, uintptr(unsafe.Pointer(&given))); errno != 0 && errno != syscall.ENOENT {
			return errno
		}
	}
	return nil
}

func (k *kernel) file(name string) string {
	content, _ := os.ReadFile(filepath.Join(k.root, name))
	return string(content)
}

func (k *kernel) release() string { return strings.TrimSpace(k.file("proc/sys/kernel/osrelease")) }

// uname writes struct new_utsname: six names of 65 bytes.
func (k *kernel) uname(asked notification) syscall.Errno {
	var names [6 * 65]byte
	for i, name := range []string{"Linux", "host", k.release(), "#1 SMP", "x86_64", "(none)"} {
		copy(names[i*65:i*65+64], name)
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", asked.pid), os.O_WRONLY, 0)
	if err != nil {
		return syscall.EFAULT
	}
	defer memory.Close()
	if _, err = memory.WriteAt(names[:], int64(asked.arguments[0])); err != nil {
		return syscall.EFAULT
	}
	return 0
}

// image is what a process wants to be loaded: a file, or a part of its memory if modprobe has decompressed it.
func image(asked notification, byFile bool) ([]byte, error) {
	if byFile {
		return os.ReadFile(fmt.Sprintf("/proc/%d/fd/%d", asked.pid, asked.arguments[0]))
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", asked.pid))
	if err != nil {
		return nil, err
	}
	defer memory.Close()
	content := make([]byte, asked.arguments[1])
	_, err = memory.ReadAt(content, int64(asked.arguments[0]))
	return content, err
}

const capSysModule = 16

// capable: whether a process has the capability, in the host's user namespace as far as the host's files say so.
func capable(pid uint32) bool {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, _ := strings.Cut(string(status), "CapEff:\t")
	word, _, _ := strings.Cut(rest, "\n")
	set, err := strconv.ParseUint(word, 16, 64)
	return err == nil && set>>capSysModule&1 == 1
}

func (k *kernel) load(asked notification, byFile bool) syscall.Errno {
	content, err := image(asked, byFile)
	if err != nil {
		return syscall.EFAULT
	}
	if !capable(asked.pid) || strings.TrimSpace(k.file("proc/sys/kernel/modules_disabled")) == "1" {
		return syscall.EPERM
	}
	info, err := modinfo(content)
	if err != nil {
		return syscall.ENOEXEC
	}
	name := info["name"]
	k.asked = append(k.asked, name)
	for _, refused := range []string{name, "*"} {
		if errno, found := k.errors[refused]; found {
			return errno
		}
	}
	for _, word := range strings.Fields(k.file("proc/cmdline")) {
		if names, found := strings.CutPrefix(word, "module_blacklist="); found && slices.Contains(strings.Split(names, ","), name) {
			return syscall.EPERM
		}
	}
	signed := bytes.HasSuffix(content, []byte("~Module signature appended~\n"))
	if lockdown := k.file("sys/kernel/security/lockdown"); !signed && lockdown != "" && !strings.Contains(lockdown, "[none]") {
		return syscall.EPERM
	}
	if built, _, _ := strings.Cut(info["vermagic"], " "); built != k.release() {
		return syscall.ENOEXEC
	}
	loaded := k.loaded()
	if slices.Contains(loaded, name) {
		return syscall.EEXIST
	}
	builtin := k.file("lib/modules/" + k.release() + "/modules.builtin")
	for _, needed := range strings.Split(info["depends"], ",") {
		if needed != "" && !slices.Contains(loaded, needed) && !strings.Contains(builtin, "/"+needed+".ko") {
			return syscall.ENOENT
		}
	}
	if err := k.has(name); err != nil {
		return syscall.ENOMEM
	}
	return 0
}

// loaded are the modules of the host's /proc/modules.
func (k *kernel) loaded() []string {
	var names []string
	for line := range strings.Lines(k.file("proc/modules")) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names
}

// has makes a module loaded.
func (k *kernel) has(name string) error {
	list, err := os.OpenFile(filepath.Join(k.root, "proc/modules"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer list.Close()
	if _, err = fmt.Fprintf(list, "%s 16384 0 - Live 0x0000000000000000\n", name); err != nil {
		return err
	}
	dir := filepath.Join(k.root, "sys/module", name)
	if err = os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "initstate"), []byte("live\n"), 0o644)
}

// modinfo reads a module's section of this name.
func modinfo(content []byte) (map[string]string, error) {
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	section := file.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no .modinfo")
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	info := map[string]string{}
	for _, entry := range strings.Split(string(data), "\x00") {
		key, value, _ := strings.Cut(entry, "=")
		info[key] = value
	}
	return info, nil
}

// module is a file that depmod and modprobe take for a module of a kernel: a relocatable ELF with .modinfo, one symbol that it exports
// and one of each module that it needs. There is no code in it.
type module struct {
	name, release string
	needs         []string
	aliases       []string
	unsigned      bool
}

// bytes writes it: elf(5), and where depmod looks for symbols (libkmod-elf.c of kmod).
func (m module) bytes() []byte {
	info := "license=GPL\x00name=" + m.name + "\x00vermagic=" + m.release + " SMP mod_unload \x00depends=" + strings.Join(m.needs, ",") + "\x00"
	for _, alias := range m.aliases {
		info += "alias=" + alias + "\x00"
	}
	names, symbols := "\x00", make([]byte, elf.Sym64Size)
	for _, needed := range m.needs {
		symbols = binary.LittleEndian.AppendUint32(symbols, uint32(len(names)))
		symbols = append(symbols, byte(elf.STB_GLOBAL)<<4, 0, 0, 0) // of no section: undefined
		symbols = append(symbols, make([]byte, 16)...)
		names += "use_" + needed + "\x00"
	}
	sections := []struct {
		name string
		data string
		elf.Section64
	}{
		{},
		{name: ".modinfo", data: info, Section64: elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 1}},
		{name: "__ksymtab_strings", data: "use_" + m.name + "\x00", Section64: elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 1}},
		{name: ".strtab", data: names, Section64: elf.Section64{Type: uint32(elf.SHT_STRTAB), Addralign: 1}},
		{name: ".symtab", data: string(symbols), Section64: elf.Section64{Type: uint32(elf.SHT_SYMTAB), Link: 3, Info: 1, Entsize: elf.Sym64Size, Addralign: 8}},
		{name: ".shstrtab", Section64: elf.Section64{Type: uint32(elf.SHT_STRTAB), Addralign: 1}},
	}
	last := &sections[len(sections)-1]
	for i := range sections {
		sections[i].Section64.Name = uint32(len(last.data))
		last.data += sections[i].name + "\x00"
	}
	var body bytes.Buffer
	for i := range sections {
		for body.Len()%8 != 0 {
			body.WriteByte(0)
		}
		sections[i].Off, sections[i].Size = 64+uint64(body.Len()), uint64(len(sections[i].data))
		body.WriteString(sections[i].data)
	}
	for body.Len()%8 != 0 {
		body.WriteByte(0)
	}
	header := elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}, Type: uint16(elf.ET_REL),
		Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Shoff: 64 + uint64(body.Len()), Ehsize: 64, Shentsize: 64,
		Shnum: uint16(len(sections)), Shstrndx: uint16(len(sections) - 1),
	}
	var file bytes.Buffer
	_ = binary.Write(&file, binary.LittleEndian, header)
	file.Write(body.Bytes())
	sections[0].Section64 = elf.Section64{} // as the format wants it
	for _, section := range sections {
		_ = binary.Write(&file, binary.LittleEndian, section.Section64)
	}
	if !m.unsigned {
		file.WriteString("~Module signature appended~\n")
	}
	return file.Bytes()
}

// zstd is a frame of Zstandard that holds content as it is (RFC 8878).
func zstd(content []byte) []byte {
	frame := binary.LittleEndian.AppendUint32(nil, 0xFD2FB528)
	frame = append(frame, 0xA0) // one segment, its size in four bytes
	frame = binary.LittleEndian.AppendUint32(frame, uint32(len(content)))
	block := uint32(len(content))<<3 | 1 // the last, raw
	return append(append(frame, byte(block), byte(block>>8), byte(block>>16)), content...)
}
