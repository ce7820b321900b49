// Contain becomes a command that sees what a container sees: in a mount namespace of its own.
//
// In:  contain ARGUMENT... -- COMMAND...; ARGUMENT, in their order: "own PATH", to be written whatever is locked around it; "see FROM TO",
// the same files read-only at another path; "lock PATH", read-only; "hide PATH", an empty directory. What is not there is passed over.
// "ask": the calls of the command and of all that it starts which load a module or ask for the kernel's release wait for an answer. It
// comes from the other end of the socket that is file descriptor 3, which gets the kernel's numbers of init_module, finit_module and
// uname, and seccomp's listener (seccomp_unotify(2)).
// Exit: the command's; 125 if there is none.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"unsafe"
)

func main() {
	log.SetFlags(0)
	runtime.LockOSThread()
	end := slices.Index(os.Args, "--")
	check(syscall.Unshare(syscall.CLONE_NEWNS))
	check(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	asks := false
	for _, words := range os.Args[1:end] {
		action, from, _ := strings.Cut(words, " ")
		if action == "ask" {
			asks = true
			continue
		}
		from, to, found := strings.Cut(from, " ")
		if !found {
			to = from
		}
		if _, err := os.Stat(from); err != nil {
			continue
		}
		if action == "hide" {
			check(syscall.Mount("none", to, "tmpfs", syscall.MS_RDONLY, "mode=755"))
			continue
		}
		check(syscall.Mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""))
		if action != "own" {
			check(syscall.Mount("", to, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		}
	}
	command := os.Args[end+1:]
	path, err := exec.LookPath(command[0])
	check(err)
	if asks {
		check(ask(3))
	}
	check(syscall.Exec(path, command, os.Environ()))
}

// numbers are the kernel's, by architecture: linux/audit.h, and the tables of system calls.
var numbers = map[string]struct{ audit, seccomp, initModule, finitModule, uname uint32 }{
	"amd64": {0xC000003E, 317, 175, 313, 63},
	"arm64": {0xC00000B7, 277, 105, 273, 160},
}

// ask installs seccomp's filter for this thread and what it becomes, and sends its listener away.
func ask(socket int) error {
	number, found := numbers[runtime.GOARCH]
	if !found {
		return fmt.Errorf("ask: no numbers of system calls for %s", runtime.GOARCH)
	}
	const (
		load, equal, end        = 0x20, 0x15, 0x06 // BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
		allow, notify           = 0x7fff0000, 0x7fc00000
		setModeFilter, listener = 1, 1 << 3
	)
	program := []syscall.SockFilter{
		{Code: load, K: 4}, {Code: equal, Jf: 4, K: number.audit}, {Code: load, K: 0},
		{Code: equal, Jt: 3, K: number.initModule}, {Code: equal, Jt: 2, K: number.finitModule}, {Code: equal, Jt: 1, K: number.uname},
		{Code: end, K: allow}, {Code: end, K: notify},
	}
	filter := syscall.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	fd, _, errno := syscall.RawSyscall(uintptr(number.seccomp), setModeFilter, listener, uintptr(unsafe.Pointer(&filter)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	message := fmt.Sprint(number.initModule, " ", number.finitModule, " ", number.uname)
	if err := syscall.Sendmsg(socket, []byte(message), syscall.UnixRights(int(fd)), nil, 0); err != nil {
		return err
	}
	_ = syscall.Close(int(fd))
	return syscall.Close(socket)
}

func check(err error) {
	if err != nil {
		log.Print("contain: ", err)
		os.Exit(125)
	}
}
