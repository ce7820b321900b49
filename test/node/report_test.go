package node

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// jsonReport is all that `report --json` prints.
type jsonReport struct {
	Node, Status, Reason, Line, Message, Error, Ambient string
	Round                                               int
	Backends, Facts                                     map[string]string
	Capabilities                                        map[string]bool
	Reasons                                             []jsonReason
	Warnings, Services                                  []string
	Modules                                             []jsonModule
	Missing                                             []jsonMissing
	Rules                                               []jsonRule
	Paths                                               []jsonPath
}

type (
	jsonReason  struct{ Reason, Subject, Sentence, Fix string }
	jsonModule  struct{ Name, State string }
	jsonMissing struct{ Name, Disk, Modprobe string }
	jsonRule    struct{ Kind, Name, Where, Command string }
	jsonPath    struct{ Path, Family, Result string }
)

func (s *sandbox) json() jsonReport {
	s.t.Helper()
	return parsed(s.t, s.report("--json"))
}

// parsed decodes what `report --json` prints: one object without a key that is not known, in printable ASCII, for a second parser too.
func parsed(t *testing.T, text string) jsonReport {
	t.Helper()
	require.True(t, utf8.ValidString(text))
	require.NotRegexp(t, `[^ -~\n]`, text)
	var report jsonReport
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	require.NoError(t, decoder.Decode(&report), text)
	require.False(t, decoder.More(), text)

	var one, other any
	require.NoError(t, json.Unmarshal([]byte(text), &one))
	require.NoError(t, yaml.Unmarshal([]byte(text), &other, yaml.DisallowUnknownFields), text)
	require.Equal(t, one, other, "two parsers see two things")
	return report
}

// Whatever load has found on a host and recorded, report prints it as JSON: 500 hosts that nobody has, by one shell and an awk for each.
func TestTheReportOfFiveHundredRandomHostsIsJSON(t *testing.T) {
	t.Parallel()
	s := newPod(t, "")
	count := 500
	if testing.Short() {
		count = 100
	}
	random := newRandom(t)
	keys := []string{"os", "os-id", "kernel", "modprobe", "capability SYS_MODULE", "module xt_owner", "missing nf_tables", "would", "needs xt_owner", "gone xt_CT", "unbuilt xt_CT", "rule install", "rule blacklist", "origin", "kept", "backend nft", "service"}
	var records strings.Builder
	for i := range count {
		fmt.Fprintf(&records, "HOST %d\nnode stand-in\nround 1\nstatus False\nline %s\nmessage %s\nerror %s\n", i, random.line(), random.line(), random.line())
		for range 1 + random.IntN(3) {
			fmt.Fprintf(&records, "reason %s\nsubject %s\nsentence %s\nfix %s\n", random.line(), random.line(), random.line(), random.line())
		}
		fmt.Fprintf(&records, "backend nft %s\nfacts\n", random.line())
		for range random.IntN(30) {
			fmt.Fprintf(&records, "%s %s\n", keys[random.IntN(len(keys))], random.line())
		}
	}
	s.write("notes/all", records.String())
	// as data of outcome.sh cleans what is read, and print_outcome prints it
	got := s.exec("watch", "/bin/sh", "-c", `. "${0%/*}/outcome.sh"; cd `+s.path("notes")+`
		clean <all | awk '$1 == "HOST" { close(file); file = $2 ".host"; next } { print >file }'
		for host in *.host; do in_form "report --json" <"$host" >"$host.json"; done`, s.path("config/report"))
	require.Zero(t, got.exit, got.log)
	require.Empty(t, got.log)
	for i := range count {
		require.Equal(t, "stand-in", parsed(t, s.read(fmt.Sprintf("notes/%d.host.json", i))).Node)
	}
}

// random writes what somebody else might have written on a node.
type random struct{ *rand.Rand }

// newRandom says its seed, which ISTIO_OS_INIT_SEED repeats.
func newRandom(t *testing.T) random {
	seed, err := strconv.ParseUint(os.Getenv("ISTIO_OS_INIT_SEED"), 10, 64)
	if err != nil {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("ISTIO_OS_INIT_SEED=%d", seed)
	return random{rand.New(rand.NewPCG(seed, seed))}
}

var pieces = []string{
	"ID", "=", "\"", "'", "rocky", "debian", "ID_LIKE=", "PRETTY_NAME=", "\n", "\n", "\n", " ", " ", "\t", "\\", "$(touch x)", "`id`", "*", "%s", "%", "\x00", "\xff", "é",
	"nf_tables", "nf-tables", "xt_owner", "xt-owner", "nft_counter", "kernel/net/", ".ko", ".ko.xz", ":", "/", "-", "_", "install", "blacklist", "alias", "#", "/bin/false", " // ",
	"module_blacklist=", "modprobe.blacklist=", ",", "Operation not permitted", "Key was rejected by service", "not found", "0x0", " 1 0 - Live 0x0\n", "(", ")", "[", "]", "!", "~", "&", ";", "|", ">", strings.Repeat("x", 3000),
}

func (r random) text() string {
	var text strings.Builder
	for range r.IntN(25) {
		text.WriteString(pieces[r.IntN(len(pieces))])
	}
	return text.String()
}

func (r random) line() string { return strings.ReplaceAll(r.text(), "\n", " ") }
