package node

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ownVolume is the directory below state that a container may write.
var ownVolume = map[string]string{"load": "load", "verify": "verify", "verify-traffic": "traffic", "watch": "watch"}

func TestAContainerWritesToItsOwnVolumeAndToNothingElseOfThePod(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "signals: {nodeCondition: {enabled: true}}").proven()
	for _, name := range []string{"load", "verify", "verify-traffic", "watch", "signal"} {
		t.Run(name, func(t *testing.T) {
			got := s.as(name, `cd "$ISTIO_OS_INIT_STATE" && for place in load verify traffic watch ../config ../host ../host/usr/sbin; do
				(echo planted >"$place/planted") 2>/dev/null && echo "$place"
				(echo planted >>"$place/outcome") 2>/dev/null && echo "$place/outcome"
			done; :`)
			want := ""
			if own, found := ownVolume[name]; found {
				want = own + "\n" + own + "/outcome\n"
			}
			require.Equal(t, want, got.log)
		})
	}
}

// traps are what a shell in a container can put in the place of a file, given where it shall lead.
var traps = map[string]string{
	"a link":           `ln -sfn "$TARGET" "$1"`,
	"a FIFO":           `mkfifo "$1"`,
	"a directory":      `mkdir "$1" && echo full >"$1/x"`,
	"a megabyte":       `head -c 1000000 /dev/zero | tr '\0' 'A' >"$1"`,
	"a program to run": `printf '#!/bin/sh\ntouch "%s/ran"\n' "$NOTES" >"$1" && chmod 777 "$1"`,
}

// As a shell that kubectl exec has opened, or that has broken out of a program: with all that the container may do, in the only
// volume that it may write, under every name that any script uses or has used.
func TestWhatAContainerPlantsChangesNothingOutsideItsVolume(t *testing.T) {
	t.Parallel()
	for _, attacker := range []string{"watch", "verify-traffic"} {
		for name, trap := range traps {
			t.Run(attacker+" "+name, func(t *testing.T) {
				if testing.Short() && name != "a link" {
					t.Skip("NOT PROVEN: what is planted besides links. Run make test.")
				}
				t.Parallel()
				s := newSandbox(t, smallPlan).loadable("nf_tables", "xt_owner", "nft_counter")
				s.program("pilot-agent", "echo 'error iptables: not permitted' >&2; exit 1")
				const listed = "br_netfilter\n"
				s.write("host/etc/modules-load.d/k8s.conf", listed)
				s.run("load", "verify", "verify-traffic")
				before := map[string]string{"load": s.record("load"), "verify": s.record("verify")}

				targets := []string{s.path("host/etc/modules-load.d/k8s.conf"), s.path("state/load/outcome"), "../verify/outcome"}
				if name != "a link" {
					targets = targets[:1]
				}
				for _, target := range targets {
					planted := s.as(attacker, fmt.Sprintf(`NOTES=%s TARGET=%s; cd "$ISTIO_OS_INIT_STATE/%s" && rm -rf * .[!.]* && mkdir -m 777 bin &&
						plant() { %s; }
						for file in outcome facts attempts .outcome.new .facts.new .attempts.new .output applied loaded condition verdict proven drift.new bin/pilot-agent bin/dd bin/iptables bin/sed; do
							plant "$file" || exit
						done`, s.path("notes"), target, ownVolume[attacker], trap))
					require.Zero(t, planted.exit, planted.log)

					s.run("load", "verify", "verify-traffic")
					require.Equal(t, "False RulesRejected verify", s.found("watch"))
					require.Equal(t, "False", s.json().Status)
					require.Contains(t, s.report(), "CANNOT run the mesh")

					require.Equal(t, listed, s.read("host/etc/modules-load.d/k8s.conf"))
					for writer, record := range before {
						require.Equal(t, record, s.record(writer), "what is recorded differs from what it was without a neighbour")
					}
					require.NoFileExists(t, s.path("notes/ran"), "something planted was run")
					require.Contains(t, s.read(persisted), "nf_tables")
				}

				watch, log := s.start()
				require.Eventually(t, func() bool { return strings.Contains(log.String(), "RulesRejected: ") }, 20*time.Second, 10*time.Millisecond)
				_ = watch.Process.Kill()
				require.Equal(t, listed, s.read("host/etc/modules-load.d/k8s.conf"))
				require.NoFileExists(t, s.path("notes/ran"))
			})
		}
	}
}

// record is a writer's record without what changes with each round.
func (s *sandbox) record(writer string) string {
	s.t.Helper()
	outcome := s.outcome(writer)
	outcome.round, outcome.uptime, outcome.line = 0, 0, ""
	outcome.reasons[0].subject = strings.Replace(outcome.reasons[0].subject, "now: nothing; loaded before: nf", "now: nf", 1)
	outcome.reasons[0].subject = strings.Replace(outcome.reasons[0].subject, "loaded before: nothing; ", "", 1)
	return fmt.Sprintf("%+v", outcome)
}

func TestTheVerdictIsThatOfTheContainerThatHasToGiveIt(t *testing.T) {
	t.Parallel()
	s := newSandbox(t, "")
	for _, row := range []struct{ name, load, verify, traffic, watch, want string }{
		{"nothing", "", "", "", "", "Unknown - -"},
		{"load has begun", "1 Unknown Loading", "", "", "", "Unknown Loading load"},
		{"load decides", "1 True ModulesFound", "", "", "", "True ModulesFound load"},
		{"verify after load", "1 Unknown ModulesLoaded", "1 Unknown RulesApplied", "", "", "Unknown RulesApplied verify"},
		{"traffic proves", "1 Unknown ModulesLoaded", "1 Unknown RulesApplied", "1 True RedirectionProven", "", "True RedirectionProven traffic"},
		{"traffic refutes", "1 Unknown ModulesLoaded", "1 Unknown RulesApplied", "1 False TrafficNotRedirected", "", "False TrafficNotRedirected traffic"},
		{"a module has gone", "1 Unknown ModulesLoaded", "1 Unknown RulesApplied", "1 True RedirectionProven", "1 False ModuleGone", "False ModuleGone watch"},
		{"nothing was recorded but by watch", "", "", "", "0 False StateUnwritable", "False StateUnwritable watch"},
		// what one of them says beside its office
		{"verify against load", "2 False ModuleNotOnDisk", "2 True RedirectionProven", "", "", "False ModuleNotOnDisk load"},
		{"traffic against load", "2 True NotSelected", "", "2 False TrafficNotRedirected", "", "True NotSelected load"},
		{"traffic against verify", "2 Unknown ModulesLoaded", "2 False RulesRejected", "2 True RedirectionProven", "", "False RulesRejected verify"},
		{"watch against verify", "2 Unknown ModulesLoaded", "2 False RulesRejected", "", "2 True RedirectionProven", "False RulesRejected verify"},
		{"watch proves", "2 Unknown ModulesLoaded", "2 Unknown RulesApplied", "", "2 True RedirectionProven", "Unknown RulesApplied verify"},
		{"watch unsays", "2 Unknown ModulesLoaded", "2 Unknown RulesApplied", "2 True RedirectionProven", "2 Unknown Loading", "True RedirectionProven traffic"},
		{"a round before", "3 Unknown Loading", "2 Unknown RulesApplied", "2 True RedirectionProven", "2 False ModuleGone", "Unknown Loading load"},
		{"a round to come", "3 Unknown Loading", "4 Unknown RulesApplied", "4 True RedirectionProven", "4 False ModuleGone", "Unknown Loading load"},
		{"without load", "", "0 Unknown RulesApplied", "0 True RedirectionProven", "", "Unknown - -"},
		{"a round that is another number of the same value", "3 Unknown Loading", "03 Unknown RulesApplied", "+3 True RedirectionProven", "3.0 False ModuleGone", "Unknown Loading load"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s.newState()
			for writer, record := range map[string]string{"load": row.load, "verify": row.verify, "traffic": row.traffic, "watch": row.watch} {
				if words := strings.Fields(record); len(words) > 0 {
					s.write("state/"+writer+"/outcome", recordOf(words[0], words[1], words[2], "x"))
				}
			}
			require.Equal(t, row.want, s.found("watch"))
		})
	}
}

// found is what find_outcome finds in a container: "STATUS REASON WRITER", - for none.
func (s *sandbox) found(container string) string {
	s.t.Helper()
	got := s.exec(container, "/usr/bin/timeout", "-s", "KILL", "20", "/bin/sh", "-c", `set -u; . "${0%/*}/outcome.sh" && find_outcome; echo "$status ${reason:--} ${writer:--}"`, s.path("config/load.sh"))
	require.Zero(s.t, got.exit, got.log)
	return strings.TrimSpace(got.log)
}

func TestARecordThatIsNoFileIsNoRecordAndHoldsNoReaderUp(t *testing.T) {
	t.Parallel()
	for _, writer := range []string{"verify", "traffic", "watch"} {
		for name, put := range map[string]func(file, truth string) error{
			"a FIFO": func(file, _ string) error { return syscall.Mkfifo(file, 0o666) },
			"a link to a FIFO": func(file, _ string) error {
				return firstError(syscall.Mkfifo(file+".fifo", 0o666), os.Symlink(file+".fifo", file))
			},
			"a link to a record":  func(file, truth string) error { return os.Symlink(truth, file) },
			"a link to itself":    func(file, _ string) error { return os.Symlink(file, file) },
			"a link to /dev/zero": func(file, _ string) error { return os.Symlink("/dev/zero", file) },
			"a directory":         func(file, _ string) error { return os.Mkdir(file, 0o755) },
			"a file without rights": func(file, truth string) error {
				content, err := os.ReadFile(truth)
				return firstError(err, os.WriteFile(file, content, 0), os.Chown(file, 1234, 1234))
			},
		} {
			t.Run(writer+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newSandbox(t, "signals: {nodeCondition: {enabled: true}}")
				s.recorded("load", 1, "Unknown", "ModulesLoaded", "x")
				s.recorded("verify", 1, "Unknown", "RulesApplied", "x")
				want := map[string]string{"verify": "Unknown ModulesLoaded load", "traffic": "Unknown RulesApplied verify", "watch": "Unknown RulesApplied verify"}[writer]
				truth := s.path("state/" + writer + "/truth")
				status := map[string]string{"verify": "True", "traffic": "True", "watch": "False"}[writer]
				require.NoError(t, os.WriteFile(truth, []byte(recordOf("1", status, "RedirectionProven", "x")), 0o644))
				file := s.path("state/" + writer + "/outcome")
				require.NoError(t, os.RemoveAll(file))
				require.NoError(t, put(file, truth))
				start := time.Now()
				require.Equal(t, want, s.found("watch"))
				require.Equal(t, want, s.found("signal"))
				require.Equal(t, "Unknown", s.json().Status)
				require.Less(t, time.Since(start), 20*time.Second)
			})
		}
	}
}

func firstError(errors ...error) error {
	for _, err := range errors {
		if err != nil {
			return err
		}
	}
	return nil
}

// What is read from another container is data: of any text only what makes sense is believed, and nothing of it moves a terminal,
// breaks a parser or has no end.
func TestForgedTextComesOutCleanAndBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("A", 100_000)
	const head = "round 1\nuptime 1\nstatus True\nreason RedirectionProven\n"
	for name, row := range map[string]struct {
		record   string
		believed bool
	}{
		"control characters":        {head + "subject \x1b[31mred\x07\x9b1m \u202e\u0000 x\nsentence a\tb\rc\x7f\n", true},
		"invalid UTF-8":             {head + "subject \xff\xfe\xc3\x28 \xe2\x82\nsentence \xf0\x28\x8c\xbc\n", true},
		"what JSON escapes":         {head + "subject \"\\\"\\\\\" \\u0000 </script> {{\nsentence \\\nerror \"}]\nbackend \"n\\ft\" wo\"rks\nbackend nft works\nbackend nft refused\n", true},
		"what the shell expands":    {head + "subject $(touch ran) `touch ran` * ~ ${IFS} %s %n\nsentence $(id)\nerror %d\n", true},
		"a name of the catalogue":   {head + "subject {line} {state} {0}\nsentence {reason}\n", true},
		"CRLF":                      {strings.ReplaceAll(head+"subject x\nsentence X.\n", "\n", "\r\n"), true},
		"a long subject":            {head + "subject " + long + "\nsentence X.\n", true},
		"many reasons":              {head + "subject x\nsentence X.\n" + strings.Repeat("reason Also\nsubject y\nsentence Y.\nfix do it\n", 5000), true},
		"a long line first":         {long + "\n" + head + "subject x\n", false},
		"no reason":                 {"round 1\nuptime 1\nstatus True\n", false},
		"a reason with a dash":      {"round 1\nuptime 1\nstatus True\nreason Redirection-Proven\nsubject x\n", false},
		"a reason with a digit":     {"round 1\nuptime 1\nstatus True\nreason Proven1\nsubject x\n", false},
		"a reason that is markup":   {"round 1\nuptime 1\nstatus True\nreason \",\"status\":\"True\nsubject x\n", false},
		"an empty reason":           {"round 1\nuptime 1\nstatus True\nreason\nsubject x\n", false},
		"a reason that never ends":  {"round 1\nuptime 1\nstatus True\nreason " + strings.Repeat("A", 41) + "\nsubject x\n", false},
		"a second reason like that": {head + "subject x\nreason no reason\nsubject y\n", false},
		"a status of its own":       {"round 1\nuptime 1\nstatus true\nreason RedirectionProven\nsubject x\n", false},
		"two words of status":       {"round 1\nuptime 1\nstatus True True\nreason RedirectionProven\nsubject x\n", false},
		"no status":                 {"round 1\nuptime 1\nreason RedirectionProven\nsubject x\n", false},
		"a round in another base":   {"round 01\nuptime 1\nstatus True\nreason RedirectionProven\nsubject x\n", false},
		"an uptime that is a sum":   {"round 1\nuptime 1+1\nstatus True\nreason RedirectionProven\nsubject x\n", false},
		"an uptime in another base": {"round 1\nuptime 08\nstatus True\nreason RedirectionProven\nsubject x\n", false},
		"an uptime of many digits":  {"round 1\nuptime 99999999999999999999\nstatus True\nreason RedirectionProven\nsubject x\n", false},
		"an uptime that is a name":  {"round 1\nuptime a[$(touch ran)]\nstatus True\nreason RedirectionProven\nsubject x\n", false},
		"nothing":                   {"", false},
		"NUL":                       {strings.Repeat("\x00", 1000), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSandbox(t, "").sleepless()
			s.recorded("load", 1, "Unknown", "ModulesLoaded", "x")
			s.recorded("verify", 1, "Unknown", "RulesApplied", "x")
			// line and message say the same as subject and sentence
			record := regexp.MustCompile(`(?s)subject ([^\n]*)\nsentence ([^\n]*)\n`).ReplaceAllString(row.record, "line $1\nmessage $2\n$0")
			s.write("state/traffic/outcome", record)
			want := "Unknown RulesApplied verify"
			if row.believed {
				want = "True RedirectionProven traffic"
			}
			require.Equal(t, want, s.found("watch"))
			report := s.json()
			require.Equal(t, strings.Fields(want)[0], report.Status)
			require.LessOrEqual(t, len(report.Message), 1000)
			text := s.report()
			ready := s.tryReport("--ready")
			require.Equal(t, map[bool]int{true: 0, false: 1}[row.believed], ready.exit, ready.log)
			_, log := s.start()
			require.Eventually(t, func() bool {
				return strings.Contains(log.String(), "watching") || strings.Contains(log.String(), "attempt 1")
			}, 20*time.Second, 10*time.Millisecond)
			for what, printed := range map[string]string{"report": text, "probe": ready.log, "log of watch": log.String(), "termination message": s.read("termination-log")} {
				require.NotRegexp(t, `[^ -~\n]`, printed, what)
				require.LessOrEqual(t, len(printed), 40_000, what)
			}
			require.LessOrEqual(t, len(s.read("termination-log")), 3000)
			ran, err := filepath.Glob(s.path("*/ran"))
			require.NoError(t, err)
			require.Empty(t, ran)
		})
	}
}
