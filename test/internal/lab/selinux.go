package lab

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/stretchr/testify/require"
)

// ours matches a denial which the chart must never cause: of load's domain whatever it was about, and of a container's about a file
// of a volume, or for a module of a device that paths.pl makes. What SELinux denies a mesh pod besides, module_request above all, is what the chart is for.
var ours = regexp.MustCompile(`avc: +denied .*(scontext=\w+:\w+:spc_t:|scontext=\w+:\w+:container_t:.*tcontext=\w+:\w+:container_(ro_)?file_t:|kmod="netdev-osi-)`)

var (
	enforcing bool
	asked     sync.Once // of one VM, which lives as long as a package's tests run
)

// SELinux tells whether the VM's SELinux is enforcing.
func (vm *VM) SELinux() bool {
	vm.t.Helper()
	asked.Do(func() {
		enforcing = strings.TrimSpace(vm.Run("cat /sys/fs/selinux/enforce 2>/dev/null || echo 0")) == "1"
	})
	return enforcing
}

// DenyAutoload makes sure that no container can make the VM's kernel load a module. Enforcing SELinux denies it by itself; without
// it kernel.modprobe=/bin/false is an imitation, which the host's own programs feel too.
func (vm *VM) DenyAutoload() {
	vm.t.Helper()
	if !vm.SELinux() {
		vm.Fault("autoload-denied")
	}
}

// AuditMark is where the VM's audit log ends now, for Denials.
func (vm *VM) AuditMark() string {
	vm.t.Helper()
	if !vm.SELinux() {
		return ""
	}
	return strings.TrimSpace(vm.Run("stat -c %s /var/log/audit/audit.log"))
}

// Denials returns what SELinux has denied since the mark, one line of the audit log each.
func (vm *VM) Denials(since string) []string {
	vm.t.Helper()
	if !vm.SELinux() {
		return nil
	}
	var denials []string
	// The daemon writes what the kernel has queued: all of it, once it has written a message of ours.
	command := "log=/var/log/audit/audit.log; from=" + since + `
mark=lab-$(cat /proc/sys/kernel/random/uuid)
auditctl -m "$mark" >/dev/null
for i in $(seq 100); do ! grep -qF "$mark" $log || break; sleep 0.1; done
grep -qF "$mark" $log || exit 1
[ "$(stat -c %s $log)" -ge $from ] || from=0 # a new file
tail -c +$((from + 1)) $log | grep 'avc: *denied' || true`
	for line := range strings.Lines(vm.Run(command)) {
		denials = append(denials, strings.TrimSpace(line))
	}
	return denials
}

// ExpectDenial excuses the denials that contain a text, which the test causes itself.
func (vm *VM) ExpectDenial(text string) { *vm.expected = append(*vm.expected, text) }

// requireNoDenialOfOurs requires that SELinux has denied nothing to the chart's own containers since the mark but what was expected.
func (vm *VM) requireNoDenialOfOurs(since string) {
	vm.t.Helper()
	for _, denial := range vm.Denials(since) {
		if !slices.ContainsFunc(*vm.expected, func(text string) bool { return strings.Contains(denial, text) }) {
			require.NotRegexp(vm.t, ours, denial)
		}
	}
}
