package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Request is what the API server's audit log tells of one (ci/audit/policy.yaml).
type Request struct {
	ID string `json:"auditID"`
	// Stage is ResponseComplete once it has been answered, ResponseStarted while it goes on: a watch.
	Stage, Verb string
	URI         string `json:"requestURI"`
	Agent       string `json:"userAgent"`
	User        struct{ Username string }
	Received    time.Time                                  `json:"requestReceivedTimestamp"`
	Status      struct{ Code int }                         `json:"responseStatus"`
	Object      struct{ Resource, Namespace, Name string } `json:"objectRef"`
}

const auditLog = "/var/log/kubernetes/audit.log" // kind.yaml

// AuditEnd returns where the audit log ends now, for Requests.
func AuditEnd(t *testing.T) int64 {
	t.Helper()
	end, err := strconv.ParseInt(RunOn(t, ControlPlane, "stat --format %s "+auditLog), 10, 64)
	require.NoError(t, err)
	return end
}

// Requests returns what the audit log has from there on about a namespace, and of its service accounts about anything, without the
// requests of the test itself. A watch is there twice, when it begins and when it ends.
func Requests(t *testing.T, from int64, namespace string) []Request {
	t.Helper()
	var requests []Request
	lines := RunOn(t, ControlPlane, fmt.Sprintf("tail --bytes +%d %s | grep --fixed-strings %s || true", from+1, auditLog, namespace))
	for line := range strings.Lines(lines) {
		var request Request
		require.NoError(t, json.Unmarshal([]byte(line), &request), line)
		about := request.Object.Namespace == namespace || strings.HasPrefix(request.User.Username, "system:serviceaccount:"+namespace+":")
		if about && !strings.HasPrefix(request.Agent, filepath.Base(os.Args[0])+"/") {
			requests = append(requests, request)
		}
	}
	return requests
}
