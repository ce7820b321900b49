// Package kernel asks one question: does a node whose kernel has its modules still on disk come to run the mesh?
//
// It needs the lab's VM. Where its SELinux is enforcing, that denies a container to make the kernel load a module, as RHEL 8's and 9's
// does; elsewhere kernel.modprobe=/bin/false imitates it. With -short, as in `make test`, a cover of the rows runs that has each backend,
// each mode and each kind of fault once; `make test-kernels` runs all.
package kernel

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// redirect are istio-init's arguments in a mesh of mode REDIRECT.
var redirect = strings.Fields("-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020")

// mode is a mode of the mesh, or several at once.
type mode struct {
	name  string          // as the page calls it
	mesh  map[string]bool // members of values.yaml's mesh, besides dns and ipv6, which are off
	env   []string        // what istio-init has set to true for it
	paths []string        // on which traffic has to arrive, besides IPv4's out and in
}

var (
	ipv6        = mode{"IPv6", map[string]bool{"ipv6": true, "dualStack": true}, []string{"ISTIO_DUAL_STACK"}, []string{"outbound IPv6", "inbound IPv6"}}
	tproxy      = mode{"TPROXY", map[string]bool{"tproxy": true}, nil, nil}
	dns         = mode{"REDIRECT+DNS", map[string]bool{"dns": true}, nil, []string{"dns IPv4"}}
	bare        = mode{"REDIRECT", nil, nil, nil} // what every other test has
	dropInvalid = mode{"REDIRECT+INVALID_DROP", map[string]bool{"dropInvalid": true}, []string{"INVALID_DROP"}, nil}
	ambient     = mode{"REDIRECT+ambient", map[string]bool{"ambient": true}, nil, nil}
)

// and is both modes at once.
func (m mode) and(other mode) mode {
	mesh := maps.Clone(m.mesh)
	maps.Copy(mesh, other.mesh)
	return mode{m.name + strings.TrimPrefix(other.name, "REDIRECT"), mesh, slices.Concat(m.env, other.env), slices.Concat(m.paths, other.paths)}
}

// cell is a backend in one of the mesh's modes.
type cell struct {
	backend string
	mode    mode
	values  string
	objects chart.Objects // what values render
}

func (c cell) name() string { return c.backend + " " + c.mode.name }

// cells are all of them, for one node; with -short each backend and each mode once.
func cells(t *testing.T, node string) []cell {
	t.Helper()
	all := []mode{ipv6, tproxy, dns, bare, dropInvalid, ambient}
	of := map[string][]mode{"nft": all, "legacy": all, "native-nft": all}
	if testing.Short() {
		of = map[string][]mode{"nft": {ipv6.and(dropInvalid)}, "legacy": {tproxy}, "native-nft": {dns.and(ambient)}}
	}
	var cells []cell
	for _, backend := range []string{"nft", "legacy", "native-nft"} {
		for _, mode := range of[backend] {
			mesh := map[string]bool{"dns": false, "ipv6": false}
			maps.Copy(mesh, mode.mesh)
			members, err := json.Marshal(mesh)
			require.NoError(t, err)
			values := fmt.Sprintf("{backend: %s, mesh: %s, persist: {enabled: false}, nodeSelector: {kubernetes.io/hostname: %s}}", backend, members, node)
			cells = append(cells, cell{backend, mode, values, chart.Render(t, values)})
		}
	}
	return cells
}

// istioInit is the pod of a mesh in this mode.
func (c cell) istioInit(t *testing.T, node string) *corev1.Pod {
	t.Helper()
	var env []string
	if c.backend != "native-nft" { // which has an argument of its own
		env = append(env, "FORCE_IPTABLES_BINARY", c.backend)
	}
	for _, name := range c.mode.env {
		env = append(env, name, "true")
	}
	return lab.IstioInit(t, node, c.objects.Container(t, "verify").Args, env...)
}

// The story of the README, for each backend and mode: the failure that users paste, helm install, gone.
func TestEachBackendAndModeFailsBeforeAndWorksAfter(t *testing.T) {
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	release := strings.TrimSpace(vm.Run("uname -r"))
	vm.Unload()
	there := vm.Modules()
	all := cells(t, vm.Name)
	mark := vm.AuditMark()
	before := whatIstioInitSays(t, vm, all)
	require.Equal(t, names(there), names(vm.Modules()), "something was loaded on demand")
	for _, command := range onTheNode(t, "istio-init-fails.md") {
		require.NotEqual(t, "127", strings.TrimSpace(vm.Run("("+command+") >/dev/null 2>&1; echo $?")), command)
	}
	denial := "imitated"
	if vm.SELinux() {
		denial = "SELinux" // of nfnetlink here; of iptable_nat once something has loaded ip_tables
		require.Regexp(t, `avc: +denied +{ module_request } for .* kmod="net-pf-16-proto-12" .*scontext=\w+:\w+:container_t:`, strings.Join(vm.Denials(mark), "\n"))
		require.Regexp(t, `(?s)^Enforcing\n.*denied +{ module_request }`, vm.Run(strings.Join(onTheNode(t, "selinux.md"), "\n")), "how the page tells")
	}
	var rows []string
	for _, c := range all {
		t.Run(c.name(), func(t *testing.T) {
			vm := vm.On(t)
			vm.Unload()
			there := vm.Modules() // what netfilter's modules have brought from elsewhere stays, as crc32c_intel
			install := lab.NewRelease(t)
			start := time.Now()
			require.NoError(t, install.Upgrade(c.values))
			install.WaitReadyOn(1)
			took := time.Since(start)

			want := vm.WithDependencies(c.objects.Plan(t))
			maps.Copy(want, there)
			require.Equal(t, names(want), names(vm.Modules()), "the plan and its dependencies, nothing else")

			phase, log := install.RunPod(c.istioInit(t, vm.Name))
			require.Equal(t, corev1.PodSucceeded, phase, log)
			outcome, _ := install.Outcome(vm.Name)
			require.Equal(t, "RedirectionProven", outcome.Reason)
			require.Equal(t, "works", outcome.Backends[c.backend])
			paths := map[string]string{}
			for _, path := range outcome.Paths {
				paths[path.Path+" "+path.Family] = path.Result
			}
			for _, path := range append([]string{"outbound IPv4", "inbound IPv4"}, c.mode.paths...) {
				require.Equal(t, "arrived", paths[path], "%s of %v", path, paths)
				delete(paths, path)
			}
			require.Empty(t, paths, "not of this mode")
			require.Equal(t, c.mode.mesh["ambient"], outcome.Ambient == "applies")
			rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s | %s | %s | works | %.0f |", release, vm.Runtime(), denial, c.mode.name, c.backend, before[c.name()], took.Seconds()))
			install.Uninstall()
		})
	}
	record(t, rows, !testing.Short() && len(rows) == len(all))
}

// onTheNode are the commands of a page's first sh block: those that a node's administrator runs.
func onTheNode(t *testing.T, page string) []string {
	t.Helper()
	return docs.Commands(t, filepath.Join(chart.Path(), "docs", page))[0]
}

// whatIstioInitSays runs istio-init of each cell at once, none of which can work, and returns what the kernel refused by the cell's name.
func whatIstioInitSays(t *testing.T, vm *lab.VM, all []cell) map[string]string {
	t.Helper()
	release := lab.NewRelease(t)
	release.CreateNamespace()
	ends := map[string]func() (corev1.PodPhase, string){}
	for _, c := range all {
		ends[c.name()] = release.StartPod(c.istioInit(t, vm.Name))
	}
	phase, log := release.RunPod(legacyRestore(t, vm.Name))
	require.Equal(t, corev1.PodFailed, phase)
	require.Contains(t, log, "iptables-restore: unable to initialize table 'nat'", "the line that users paste")
	says := map[string]string{}
	for name, end := range ends {
		phase, log := end()
		require.Equal(t, corev1.PodFailed, phase, "%s: istio-init succeeds before anything is loaded:\n%s", name, log)
		says[name] = refusal(log)
		require.NotEmpty(t, says[name], "%s: %s", name, log)
	}
	return says
}

// refusal is the first line of Istio's log that says what the kernel refused, without what Istio puts before the tool's words.
func refusal(log string) string {
	for line := range strings.Lines(log) {
		for _, words := range []string{"unable to initialize table", "Failed to initialize nft", "Could not fetch rule set", "RULE_APPEND failed", "TABLE_ADD failed", "CHAIN_ADD failed", "no loaded kernel support", "missing kernel module", "Unable to initialize Netlink socket", "Could not process rule"} {
			if strings.Contains(line, words) {
				fields := strings.Split(strings.TrimSpace(line), "\t")
				return beforeTheWords.ReplaceAllString(fields[len(fields)-1], "")
			}
		}
	}
	return ""
}

var beforeTheWords = regexp.MustCompile(`^.*(Command error: |exit status \d+ (out: )?|could not run nftables command: )`)

// legacyRestore is a pod that may what istio-init may, and applies an empty nat table with iptables-legacy-restore: Istio's own code
// looks before it restores, and so fails with other words.
func legacyRestore(t *testing.T, node string) *corev1.Pod {
	t.Helper()
	pod := lab.IstioInit(t, node, nil)
	container := chart.ContainerOf(t, &pod.Spec, "istio-init")
	container.Command, container.Args = []string{"/bin/sh", "-c", `printf '*nat\nCOMMIT\n' | iptables-legacy-restore`}, nil
	return pod
}

func names(modules map[string]bool) []string { return slices.Sorted(maps.Keys(modules)) }

// record logs the rows and, with -update, puts them in the place of the page's rows of the same kernel and runtime, if they are complete. The
// environment's KERNEL is the kernel's suite.
func record(t *testing.T, rows []string, complete bool) {
	t.Helper()
	t.Logf("kernel, runtime, denial, mode, backend, before, after, seconds to Ready\n%s", strings.Join(rows, "\n"))
	if t.Failed() || !complete || !*docs.Update {
		return
	}
	suites := []string{"bullseye", "bookworm", "trixie", "sid"}
	require.Contains(t, suites, os.Getenv("KERNEL"))
	for i := range rows {
		rows[i] = "| " + os.Getenv("KERNEL") + strings.TrimPrefix(rows[i], "|")
	}
	section := docs.Section{Page: "kernels.md", Name: "kernels"}
	old, err := section.Rows()
	require.NoError(t, err)
	// of "| bullseye 5.10.0-46-cloud-amd64 | containerd 2.3.7 | …" the suite and the runtime without their versions
	all := docs.Merged(old, rows, func(row string) string { words := strings.Fields(row); return words[1] + " " + words[4] })
	slices.SortStableFunc(all, func(a, b string) int {
		return slices.Index(suites, strings.Fields(a)[1]) - slices.Index(suites, strings.Fields(b)[1])
	})
	require.NoError(t, section.Write(fmt.Sprintf("The newest rows are of %s, from a VM of QEMU's accelerator %s with two processors.\n\n"+
		"| Debian, kernel | runtime | denial | mode | backend | before | after | seconds |\n|---|---|---|---|---|---|---|---|\n%s\n",
		time.Now().UTC().Format(time.DateOnly), lab.Accelerator(), strings.Join(all, "\n"))))
}
