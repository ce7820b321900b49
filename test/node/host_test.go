package node

import (
	"bufio"
	"bytes"
	"debug/elf"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// host is a node of somebody's: what differs from a sound one of its distribution. Its modprobe, depmod and shell are this machine's own.
type host struct {
	name   string
	system string // a key of systems
	values string // of the chart; default: backend nft, and the names decide
	// kernel is the release that runs; default: the system's. Its modules are all of netfilter, as files of suffix .ko or, with zst, .ko.zst,
	// without those named; some are built in instead. None is as after an upgrade, when the running kernel's directory has gone.
	kernel           string
	zst, none        bool
	without, builtin []string
	loaded           []string
	files            map[string]string // more, by path; "-> TARGET" for a link
	errors           map[string]syscall.Errno
	breaks           func(*sandbox)
	want             want
	aside            bool // too rare for the page
}

// want is what is expected of a host; where nothing is, it is ready.
type want struct {
	line     string   // the outcome's, without "Also: "
	also     []string // "REASON: FIX" of each further reason
	sentence string   // a part of the first reason's
	warnings []string
	config   map[string]string // the files of the MachineConfig by path, without the list of modules
}

// sound are the values for a mesh whose names decide, so that no rule has to be applied.
const sound = "backend: nft\nverify: {enabled: false}\npersist: {enabled: false}\n"

// needs are the modules of netfilter by what each needs, as depmod has found it for Linux 6.12 of Debian 13 (modules.dep of
// linux-image-6.12.118+deb13-cloud-amd64).
var needs = map[string]string{
	"nfnetlink": "", "libcrc32c": "", "nf_defrag_ipv4": "", "nf_defrag_ipv6": "", "x_tables": "", "nf_tproxy_ipv4": "", "nf_tproxy_ipv6": "",
	"nf_conntrack": "nf_defrag_ipv4 nf_defrag_ipv6 libcrc32c", "nf_nat": "nf_conntrack libcrc32c", "nf_tables": "nfnetlink libcrc32c",
	"nft_compat": "nf_tables x_tables nfnetlink", "nft_chain_nat": "nf_tables nf_nat", "nft_redir": "nf_tables nf_nat", "nft_ct": "nf_tables nf_conntrack",
	"nft_tproxy": "nf_tables nf_tproxy_ipv4 nf_tproxy_ipv6", "nft_nat": "nf_tables nf_nat",
	"xt_REDIRECT": "x_tables nf_nat", "xt_owner": "x_tables", "xt_tcpudp": "x_tables", "xt_comment": "x_tables", "xt_mark": "x_tables", "xt_multiport": "x_tables",
	"xt_connmark": "x_tables nf_conntrack", "xt_conntrack": "x_tables nf_conntrack", "xt_CT": "x_tables nf_conntrack", "xt_nat": "x_tables nf_nat",
	"xt_TPROXY": "x_tables nf_tproxy_ipv4 nf_tproxy_ipv6", "xt_set": "x_tables ip_set", "ip_set": "nfnetlink", "ip_set_hash_ip": "ip_set",
	"ip_tables": "x_tables", "ip6_tables": "x_tables", "iptable_nat": "ip_tables nf_nat", "iptable_mangle": "ip_tables", "iptable_raw": "ip_tables", "iptable_filter": "ip_tables",
	"ip6table_nat": "ip6_tables nf_nat", "ip6table_mangle": "ip6_tables", "ip6table_raw": "ip6_tables", "ip6table_filter": "ip6_tables",
}

// older are those of Linux before 5.1, where NAT's chains are a module for each family (net/ipv4/netfilter/nft_chain_nat_ipv4.c and
// net/ipv6/netfilter/nft_chain_nat_ipv6.c of 4.19), and of kernels where counters are a module of their own (5.10, not 6.1).
var older = map[string]string{"nft_chain_nat_ipv4": "nf_tables nf_nat", "nft_chain_nat_ipv6": "nf_tables nf_nat", "nft_counter": "nf_tables"}

// legacy are those of iptables-legacy.
var legacy = []string{"ip_tables", "ip6_tables", "iptable_nat", "iptable_mangle", "iptable_raw", "iptable_filter", "ip6table_nat", "ip6table_mangle", "ip6table_raw", "ip6table_filter"}

// on lays the host out, and a pod on it.
func (h host) on(t *testing.T) *sandbox {
	t.Helper()
	need(t, "modprobe", "depmod", "ldd", "setpriv")
	system, known := systems[h.system]
	require.True(t, known, h.system)
	if h.values == "" {
		h.values = sound
	}
	if h.kernel == "" {
		h.kernel = system.kernel
	}
	s := newPod(t, h.values)
	s.kernel = &kernel{t: t, root: s.path("host"), errors: h.errors}
	ownPrograms(t, s.path("host"))
	s.put("etc/os-release", system.osRelease)
	s.put("proc/sys/kernel/osrelease", h.kernel+"\n")
	s.put("proc/sys/kernel/modules_disabled", "0\n")
	for name, content := range system.files {
		s.put(name, content)
	}
	if !h.none {
		s.modules(h, slices.Concat(h.builtin, system.builtin), slices.Concat(h.without, system.without), system.old)
	}
	for _, name := range h.loaded {
		require.NoError(t, s.kernel.has(name))
	}
	for name, content := range h.files {
		s.put(name, content)
	}
	if h.breaks != nil {
		h.breaks(s)
	}
	return s
}

// put writes a file of the host, and makes its directory.
func (s *sandbox) put(name, content string) {
	s.t.Helper()
	path := s.path("host/" + name)
	require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
	if target, isLink := strings.CutPrefix(content, "-> "); isLink {
		require.NoError(s.t, os.RemoveAll(path))
		require.NoError(s.t, os.Symlink(target, path))
		return
	}
	require.NoError(s.t, os.WriteFile(path, []byte(content), 0o644))
}

// modules writes the host's modules and has depmod make the lists.
func (s *sandbox) modules(h host, builtin, without, old []string) {
	s.t.Helper()
	all := maps.Clone(needs)
	for _, name := range old {
		all[name] = older[name]
	}
	dir := "usr/lib/modules/" + h.kernel + "/"
	list := ""
	for name, needed := range all {
		if slices.Contains(without, name) {
			continue
		}
		if slices.Contains(builtin, name) || slices.Contains(builtin, "*") {
			list += "kernel/net/netfilter/" + name + ".ko\n"
			continue
		}
		m := module{name: name, release: h.kernel, needs: strings.Fields(needed)}
		if rest, isMatch := strings.CutPrefix(name, "xt_"); isMatch {
			m.aliases = []string{"ipt_" + rest, "ip6t_" + rest} // as modinfo xt_owner has them
		}
		m.needs = slices.DeleteFunc(m.needs, func(other string) bool { return slices.Contains(builtin, other) || slices.Contains(without, other) })
		if h.zst {
			s.put(dir+"kernel/net/netfilter/"+name+".ko.zst", string(zstd(m.bytes())))
		} else {
			s.put(dir+"kernel/net/netfilter/"+name+".ko", string(m.bytes()))
		}
	}
	s.put(dir+"modules.builtin", list)
	s.put(dir+"modules.order", "")
	s.put(dir+"modules.builtin.modinfo", "")
	s.depmod(h.kernel)
}

func (s *sandbox) depmod(release string) {
	s.t.Helper()
	output, err := exec.CommandContext(s.t.Context(), "depmod", "-b", s.path("host"), release).CombinedOutput()
	require.NoError(s.t, err, string(output))
	require.Empty(s.t, string(output))
}

// ownPrograms gives a root this machine's modprobe, sh, true and false, with the libraries that they need, and the links of a merged /usr.
func ownPrograms(t *testing.T, root string) {
	t.Helper()
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, "usr", dir), 0o755))
		require.NoError(t, os.Symlink("usr/"+dir, filepath.Join(root, dir)))
	}
	files, err := programFiles()
	require.NoError(t, err)
	for to, from := range files {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(root, to)), 0o755))
		require.NoError(t, os.Link(from, filepath.Join(root, to)))
	}
}

// programFiles copies them once: the files of a host are links to the copies. By where they lie on a host.
var programFiles = sync.OnceValues(func() (map[string]string, error) {
	files := map[string]string{}
	add := func(to, from string) error {
		if _, found := files[to]; found {
			return nil
		}
		content, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		files[to] = filepath.Join(programDir, fmt.Sprintf("%d-%s", len(files), filepath.Base(to)))
		return os.WriteFile(files[to], content, 0o755)
	}
	for to, name := range map[string]string{"/usr/sbin/modprobe": "modprobe", "/usr/bin/sh": "sh", "/usr/bin/true": "true", "/usr/bin/false": "false"} {
		from, err := exec.LookPath(name)
		if err != nil {
			return nil, err
		}
		if err = add(to, from); err != nil {
			return nil, err
		}
		// "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x...)", "/lib64/ld-linux-x86-64.so.2 (0x...)"
		output, err := exec.Command("ldd", from).Output()
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(strings.NewReader(string(output)))
		for lines.Scan() {
			for _, word := range strings.Fields(lines.Text()) {
				if !strings.HasPrefix(word, "/") {
					continue
				}
				if err = add(strings.Replace("/usr"+word, "/usr/usr/", "/usr/", 1), word); err != nil {
					return nil, err
				}
			}
		}
	}
	return files, nil
})

// loads runs load on a host with a kernel of its own.
func (s *sandbox) loads() result {
	s.t.Helper()
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		s.t.Skipf("NOT PROVEN: hosts with a kernel of their own, whose system calls have no numbers here for %s.", runtime.GOARCH)
	}
	got := s.exec("load", s.command(s.container("load"))...)
	if strings.Contains(got.log, "contain: seccomp: ") {
		s.t.Skipf("NOT PROVEN: hosts with a kernel of their own, which need seccomp's listener (Linux 5.5): %s", got.log)
	}
	return got
}

// busybox gives the host this machine's busybox as its modprobe, which knows neither install nor --showconfig.
func busybox(s *sandbox) {
	s.t.Helper()
	need(s.t, "busybox")
	from, err := exec.LookPath("busybox")
	require.NoError(s.t, err)
	program, err := os.ReadFile(from)
	require.NoError(s.t, err)
	file, err := elf.NewFile(bytes.NewReader(program))
	require.NoError(s.t, err)
	if file.Section(".interp") != nil {
		s.t.Skip("NOT PROVEN: busybox as the host's modprobe, which needs one without libraries. Debian: apt-get install busybox-static.")
	}
	s.put("usr/bin/busybox", string(program))
	require.NoError(s.t, os.Chmod(s.path("host/usr/bin/busybox"), 0o755))
	s.put("usr/sbin/modprobe", "-> /usr/bin/busybox")
}

// gone removes files of the host.
func gone(names ...string) func(*sandbox) {
	return func(s *sandbox) {
		for _, name := range names {
			require.NoError(s.t, os.RemoveAll(s.path("host/"+name)))
		}
	}
}
