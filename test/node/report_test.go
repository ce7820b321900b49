package node

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// jsonReport is all that `report --json` prints.
type jsonReport struct {
	Node, Status, Reason, Line, Message, Error string
	Round                                      int
	Backends, Facts                            map[string]string
	Capabilities                               map[string]bool
	Reasons                                    []jsonReason
	Warnings, Services                         []string
	Modules                                    []jsonModule
	Missing                                    []jsonMissing
	Rules                                      []jsonRule
}

type (
	jsonReason  struct{ Reason, Subject, Sentence, Fix string }
	jsonModule  struct{ Name, State string }
	jsonMissing struct{ Name, Disk, Modprobe string }
	jsonRule    struct{ Kind, Name, Where, Command string }
)

// json decodes what `report --json` prints: one object without a key that is not known, in printable ASCII, for a second parser too.
func (s *sandbox) json() jsonReport {
	s.t.Helper()
	text := s.report("--json")
	require.True(s.t, utf8.ValidString(text))
	require.NotRegexp(s.t, `[^ -~\n]`, text)
	var report jsonReport
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.DisallowUnknownFields()
	require.NoError(s.t, decoder.Decode(&report), text)
	require.False(s.t, decoder.More(), text)

	var one, other any
	require.NoError(s.t, json.Unmarshal([]byte(text), &one))
	require.NoError(s.t, yaml.Unmarshal([]byte(text), &other, yaml.DisallowUnknownFields), text)
	require.Equal(s.t, one, other, "two parsers see two things")
	return report
}
