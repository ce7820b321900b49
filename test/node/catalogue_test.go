package node

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// entry is one reason of the catalogue.
type entry struct{ reason, status, when, sentence, fix string }

// catalogue reads it. What is not documented there fails the test.
func catalogue(t *testing.T) []entry {
	t.Helper()
	content, err := os.ReadFile(chart.Script("reasons"))
	require.NoError(t, err)
	var entries []entry
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		require.NotRegexp(t, `[^ -~]`, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, _ := strings.Cut(line, " ")
		require.NotEmpty(t, value, line)
		if key == "reason" {
			entries = append(entries, entry{reason: value})
			continue
		}
		require.NotEmpty(t, entries, line)
		last := &entries[len(entries)-1]
		field := map[string]*string{"status": &last.status, "when": &last.when, "sentence": &last.sentence, "fix": &last.fix}[key]
		require.NotNil(t, field, "unknown key in %q", line)
		require.Empty(t, *field, "%s says it twice", last.reason)
		*field = value
	}
	return entries
}

func TestEveryReasonOfTheCatalogueIsCompleteAndEveryReasonOfTheScriptsIsInIt(t *testing.T) {
	t.Parallel()
	var known []string
	for _, entry := range catalogue(t) {
		known = append(known, entry.reason)
		require.Regexp(t, `^[A-Z][A-Za-z]{2,39}$`, entry.reason)
		require.Contains(t, []string{"True", "False", "Unknown"}, entry.status, entry.reason)
		require.NotEmpty(t, entry.when, entry.reason)
		require.NotRegexp(t, `^[A-Z][a-z]+ |[.]$`, entry.when, "%s: it continues a table's row", entry.reason)
		require.Regexp(t, `[.}]$`, entry.sentence, entry.reason)
		require.Equal(t, entry.status == "False", entry.fix != "", "%s: a fix is for what is wrong", entry.reason)
		require.NotRegexp(t, `\.$`, entry.fix, entry.reason)
	}
	require.Len(t, slices.Compact(slices.Sorted(slices.Values(known))), len(known), "a reason is there twice")

	files, err := filepath.Glob(chart.Script("*"))
	require.NoError(t, err)
	given := regexp.MustCompile(`\b(?:(?:conclude|finish) |(?:add|reason_for)\(")([A-Z][a-z]+[A-Za-z]*)`)
	var used []string
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil || filepath.Base(file) == "reasons" { // a directory
			continue
		}
		for _, match := range given.FindAllStringSubmatch(string(content), -1) {
			used = append(used, match[1])
		}
	}
	require.ElementsMatch(t, known, slices.Compact(slices.Sorted(slices.Values(used))))
}

// Each reason as the scripts really give it, by what a host or a pod is like: its sentence and fix are the catalogue's, and in
// the place of every {name} there is something.
func TestEveryReasonIsGivenWithoutAHole(t *testing.T) {
	t.Parallel()
	const byName = "backend: nft\nverify: {enabled: false}"
	dep := map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/xt_owner.ko:\nkernel/nf_tables.ko:\nkernel/xt_CT.ko:\n"}
	with := func(name, content string) map[string]string {
		return map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": dep["lib/modules/5.14.0-0.el9.stand-in/modules.dep"], name: content}
	}
	onHost := func(broken fault) func(*testing.T) (*sandbox, string) {
		return func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, plan+byName)
			s.hit(broken)
			s.run("load")
			return s, "load"
		}
	}
	inPod := func(values, agent, writer string, containers ...string) func(*testing.T) (*sandbox, string) {
		return func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, plan+values).hurried().program("pilot-agent", agent)
			s.run(containers...)
			return s, writer
		}
	}
	watched := func(prepare func(*sandbox)) func(*testing.T) (*sandbox, string) {
		return func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, "").sleepless()
			prepare(s)
			s.start()
			require.Eventually(t, func() bool { _, err := os.Lstat(s.path("state/watch/outcome")); return err == nil }, soon, soon/1000)
			return s, "watch"
		}
	}
	const applies, refuses = "exit 0", "echo 'error iptables: not permitted' >&2; exit 1"
	ways := map[string]func(*testing.T) (*sandbox, string){
		"Loading": func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, plan+byName)
			s.write("host/stand-in/busy", "")
			s.startAs(s.container("load"))
			require.Eventually(t, func() bool { _, err := os.Lstat(s.path("state/load/outcome")); return err == nil }, soon, soon/1000)
			return s, "load"
		},
		"ModulesLoaded": inPod("", applies, "load", "load"),
		"ModulesSeen":   inPod(lookOnly, applies, "load", "load"),
		"NodePrepared":  inPod("backend: nft\n"+lookOnly, applies, "traffic", "load", "verify", "verify-traffic"),
		"ModuleNotLoaded": func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, plan+byName+"\n"+lookOnly)
			s.hit(fault{files: dep})
			s.run("load")
			return s, "load"
		},
		"Applying": func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, plan).program("pilot-agent", "exec sleep 60")
			s.recorded("load", 1, "Unknown", "ModulesLoaded", "x")
			s.startAs(s.container("verify"))
			require.Eventually(t, func() bool { _, err := os.Lstat(s.path("state/verify/outcome")); return err == nil }, soon, soon/1000)
			return s, "verify"
		},
		"RulesApplied":         inPod("backend: nft", applies, "verify", "load", "verify"),
		"RedirectionProven":    inPod("backend: nft", applies, "traffic", "load", "verify", "verify-traffic"),
		"TrafficNotRedirected": inPod("backend: nft", `case $* in *--run-validation*) exit 126 ;; esac`, "traffic", "load", "verify", "verify-traffic"),
		"TrafficHangs":         inPod("backend: nft", `case $* in *--run-validation*) exec sleep 60 ;; esac`, "traffic", "load", "verify", "verify-traffic"),
		"RulesHang":            inPod("backend: nft", "exec sleep 60", "verify", "load", "verify"),
		"BackendMismatch":      inPod("backend: nft", "echo 'Running iptables restore with: iptables-legacy-restore'", "verify", "load", "verify"),
		"RulesRejected": func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, plan+"backend: nft").program("pilot-agent", refuses).loadable("nf_tables", "xt_owner", "xt_CT")
			s.run("load", "verify")
			return s, "verify"
		},
		"BackendUnavailable": func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, "backend: legacy").program("pilot-agent", refuses)
			s.hit(fault{files: map[string]string{"lib/modules/5.14.0-0.el9.stand-in/modules.dep": "kernel/nft_chain_nat.ko.xz:\nkernel/nft_redir.ko.xz:\nkernel/nf_tables.ko.xz:\nkernel/nft_ct.ko.xz:\nkernel/nft_counter.ko:\n"}})
			s.run("load", "verify")
			return s, "verify"
		},
		"ModulesFound":      onHost(fault{loadable: []string{"nf_tables", "xt_owner", "xt_CT"}}),
		"ModuleNotOnDisk":   onHost(fault{}),
		"ModuleOverridden":  onHost(fault{refused: "xt_owner Invalid argument\n", files: with("etc/modprobe.d/x.conf", "install xt_owner /bin/false\n")}),
		"ModuleBlocklisted": onHost(fault{refused: "xt_owner Operation not permitted\n", files: with("proc/cmdline", "module_blacklist=xt_owner\n")}),
		"ModuleRefused":     onHost(fault{refused: "xt_owner Exec format error\n", files: dep}),
		"ModuleUnsigned":    onHost(fault{refused: "xt_owner Key was rejected by service\n", files: dep}),
		"ModuleDenied":      onHost(fault{refused: "xt_owner Permission denied\n", files: with("sys/fs/selinux/enforce", "1")}),
		"SeccompDenied":     onHost(fault{refused: "xt_owner Operation not permitted\n", files: with("sys/kernel/security/lsm", "lockdown,capability,bpf")}),
		"ModulesDisabled":   onHost(fault{refused: "xt_owner Operation not permitted\n", files: with("proc/sys/kernel/modules_disabled", "1\n")}),
		"ModprobeMissing":   onHost(fault{files: dep, breaks: func(s *sandbox) { require.NoError(s.t, os.Remove(s.path("host/usr/sbin/modprobe"))) }}),
		"ModprobeHangs":     onHost(fault{files: dep, breaks: func(s *sandbox) { s.hurried().write("host/stand-in/busy", "") }}),
		"CapabilityRefused": onHost(fault{files: dep, breaks: func(s *sandbox) {
			s.rendered("load").SecurityContext.Capabilities.Add = nil
		}}),
		"LoadConfined":   onHost(fault{files: with("proc/self/attr/current", "system_u:system_r:container_t:s0:c1,c2")}),
		"HostUnreadable": onHost(fault{breaks: func(s *sandbox) { s.hurried().slowFiles() }}),
		"ModuleMissing": onHost(fault{loadable: []string{"none"}, breaks: func(s *sandbox) {
			require.NoError(s.t, os.RemoveAll(s.path("host/lib/modules")))
			require.NoError(s.t, os.Remove(s.path("host/proc/modules")))
		}}),
		"NotSelected": func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, plan+"nodes: {osRelease: [debian]}")
			s.hit(fault{})
			s.run("load")
			return s, "load"
		},
		"PlanUnreadable":  onHost(fault{breaks: func(s *sandbox) { require.NoError(s.t, os.Remove(s.path("config/plan"))) }}),
		"ModuleGone":      watched(func(s *sandbox) { s.proven("xt_owner") }),
		"StateUnwritable": watched(func(s *sandbox) { s.recorded("load", 1, "Unknown", "ModulesLoaded", "x") }),
		"SandboxNotEnded": func(t *testing.T) (*sandbox, string) {
			s := newSandbox(t, "").sleepless()
			s.failed(1)
			s.start()
			require.Eventually(t, func() bool { _, err := os.Lstat(s.path("state/watch/outcome")); return err == nil }, soon, soon/1000)
			return s, "watch"
		},
	}
	hole := regexp.MustCompile(`\\\{[a-z_]+\\\}`)
	for _, entry := range catalogue(t) {
		t.Run(entry.reason, func(t *testing.T) {
			t.Parallel()
			way, found := ways[entry.reason]
			require.True(t, found, "no test gives the reason %s", entry.reason)
			s, writer := way(t)
			outcome := s.outcome(writer)
			index := slices.IndexFunc(outcome.reasons, func(given reason) bool { return given.name == entry.reason })
			require.GreaterOrEqual(t, index, 0, "%+v", outcome)
			if index == 0 {
				require.Equal(t, entry.status, outcome.status)
			}
			given := outcome.reasons[index]
			require.NotEmpty(t, given.subject)
			for text, template := range map[string]string{given.sentence: entry.sentence, given.fix: entry.fix} {
				// only what a kernel has not been seen to load may be nothing
				pattern := strings.ReplaceAll(regexp.QuoteMeta(template), `\{unseen\}`, `.*`)
				require.Regexp(t, "^"+hole.ReplaceAllString(pattern, `\S(.*\S)?`)+"$", text)
				require.NotContains(t, text, "{")
				require.NotContains(t, text, "  ")
			}
		})
	}
}
