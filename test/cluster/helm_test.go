package cluster

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

func TestAReleaseLivesThroughUpgradeRefusalRollbackAndUninstall(t *testing.T) {
	t.Parallel()
	for _, helm := range chart.Helms {
		t.Run(string(helm), func(t *testing.T) {
			t.Parallel()
			release := lab.NewRelease(t)
			release.Helm = helm
			before, one := previous(t), lab.OnOneNode(t)
			require.NoError(t, release.UpgradeTo(before, one))
			release.WaitReadyOn(1)
			first, plan := uids(release), release.Plan()
			require.Contains(t, plan, "br_netfilter")

			require.NoError(t, release.UpgradeTo(before, one+"podLabels: {}"))
			release.WaitReadyOn(1)
			require.Equal(t, first, uids(release), "an upgrade that changes nothing rolls nothing")

			require.NoError(t, release.Upgrade(one))
			release.WaitReadyOn(1)
			second := uids(release)
			requireAllNew(t, first, second, "an upgrade that changes the plan rolls every pod")
			require.NotContains(t, release.Plan(), "br_netfilter")

			require.ErrorContains(t, release.Upgrade("backend: ebpf"), `at '/backend': value must be one of 'auto', 'nft', 'legacy', 'native-nft'`)
			require.ErrorContains(t, release.Upgrade("imge: {}"), `additional properties 'imge' not allowed`)
			release.WaitReadyOn(1)
			require.Equal(t, second, uids(release), "a refused upgrade leaves the pods alone")
			require.Equal(t, "3 deployed", release.Revision(), "a refused upgrade leaves the release alone")

			release.Rollback()
			release.WaitReadyOn(1)
			requireAllNew(t, second, uids(release), "a rollback rolls every pod")
			require.Equal(t, plan, release.Plan(), "a rollback returns the plan")
			require.Equal(t, map[chart.Helm]string{chart.Helm3: "Update", chart.Helm4: "Apply"}[helm], operation(t, release))

			requireUninstalled(t, release)
		})
	}
}

func TestHelm4TakesOverAReleaseOfHelm3(t *testing.T) {
	t.Parallel()
	release, one := lab.NewRelease(t), lab.OnOneNode(t)
	require.NoError(t, release.UpgradeTo(previous(t), one))
	release.WaitReadyOn(1)
	first := uids(release)

	release.Helm = chart.Helm4
	require.NoError(t, release.Upgrade(one))
	release.WaitReadyOn(1)
	second := uids(release)
	requireAllNew(t, first, second, "an upgrade that changes the plan rolls every pod")
	require.Equal(t, "Update", operation(t, release), "Helm 4 goes on as Helm 3 has begun")

	require.NoError(t, release.UpgradeTo(chart.Path(), one+"modules: {extra: [dummy]}", "--server-side=true"))
	release.WaitReadyOn(1)
	requireAllNew(t, second, uids(release), "an upgrade that changes the plan rolls every pod")
	require.Contains(t, release.Plan(), "dummy")
	require.Equal(t, "Apply", operation(t, release))

	release.Rollback()
	release.WaitReadyOn(1)
	require.NotContains(t, release.Plan(), "dummy")
	requireUninstalled(t, release)
}

// What --wait means differs, and it is never less than said: Helm 3 goes on without as many nodes as maxUnavailable allows.
func TestHelmWaitsForTheProof(t *testing.T) {
	t.Parallel()
	for helm, mayLack := range map[chart.Helm]int{chart.Helm3: 1, chart.Helm4: 0} {
		t.Run(string(helm), func(t *testing.T) {
			if helm != chart.Helm3 {
				lab.NotInTheCover(t, "that Helm 4 waits for the proof on every node")
			}
			t.Parallel()
			release := lab.NewRelease(t)
			release.Helm = helm
			err := release.UpgradeTo(chart.Path(), "{verify: {enabled: false}, modules: {extra: [no_such_module]}}", "--wait", "--timeout", "10s")
			require.Error(t, err, "no node is Ready")
			require.Regexp(t, "timed out|deadline exceeded|not ready", err.Error())
			require.Equal(t, "1 failed", release.Revision())

			require.NoError(t, release.UpgradeTo(chart.Path(), "updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1}}", "--wait", "--timeout", "100s"))
			require.GreaterOrEqual(t, int(release.DaemonSet().Status.NumberReady), len(lab.Nodes(t))-mayLack)
		})
	}
}

func TestHelmTestPassesOnANodeThatCanRunTheMesh(t *testing.T) {
	t.Parallel()
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade(lab.OnOneNode(t)))
	release.WaitReadyOn(1)
	pods := uids(release)
	for _, helm := range chart.Helms {
		release.Helm = helm
		output, err := release.Test()
		require.NoError(t, err, output)
		require.Regexp(t, `(?m)^RulesApplied: (nft|legacy|native-nft)$`, output, helm)
	}
	release.WaitReadyOn(1)
	require.Equal(t, pods, uids(release), "the DaemonSet takes its pod for one of its own")
	require.Equal(t, []string{"pods/istio-os-init-test"}, leftPods(release), "its log can be read")
}

// The negative control: everything is real but one rule more, which this kernel refuses.
func TestHelmTestFailsWithTheReason(t *testing.T) {
	t.Parallel()
	name, tag := lab.RefusedRuleImage(t)
	release := lab.NewRelease(t)
	require.NoError(t, release.Upgrade("backend: nft\nimage: {name: "+name+", tag: "+tag+"}\n"+lab.OnOneNode(t)))
	for _, helm := range chart.Helms {
		release.Helm = helm
		output, err := release.Test()
		if err == nil {
			t.Skip("NOT PROVEN: that helm test fails on a node which cannot run the mesh, since this kernel has ipvs. Run on a kernel without it.")
		}
		require.Regexp(t, `(?m)^RulesRejected: .*Extension ipvs revision 0 not supported`, output, helm)
		require.Regexp(t, `(?m)^  the kernel says: `, output, helm)
	}
}

// previous returns a chart as the version before ours may be: of another version, and with another plan and another script.
func previous(t *testing.T) string {
	t.Helper()
	dir := chart.Copy(t)
	for name, change := range map[string][2]string{
		"Chart.yaml":     {`(?m)^version: .*$`, "version: 0.0.9"},
		"values.yaml":    {`(?m)^  extra: \[\]$`, "  extra: [br_netfilter]"},
		"files/watch.sh": {`\z`, "# the version before\n"},
	} {
		file := filepath.Join(dir, name)
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		changed := regexp.MustCompile(change[0]).ReplaceAll(content, []byte(change[1]))
		require.NotEqual(t, string(content), string(changed), name)
		require.NoError(t, os.WriteFile(file, changed, 0o600))
	}
	return dir
}

// operation returns how Helm writes the release's DaemonSet: Apply, on the server's side, or Update.
func operation(t *testing.T, release *lab.Release) string {
	t.Helper()
	var operations []string
	for _, field := range release.DaemonSet().ManagedFields {
		if field.Subresource == "" && strings.HasPrefix(field.Manager, "helm") {
			operations = append(operations, string(field.Operation))
		}
	}
	return strings.Join(operations, " ")
}

// requireUninstalled uninstalls the release and requires that nothing of it is left: on no node, nor in its namespace.
func requireUninstalled(t *testing.T, release *lab.Release) {
	t.Helper()
	plant(t, release, lab.Nodes(t)...)
	release.Uninstall()
	for _, node := range lab.Nodes(t) {
		require.Equal(t, "gone", lab.RunOn(t, node, "grep -qs "+release.Namespace+" "+lab.Persisted+" || echo gone"), node)
	}
	release.WaitFor("uninstall leaves something", func() bool { return len(release.Left()) == 0 })
}

func leftPods(release *lab.Release) []string {
	return slices.DeleteFunc(release.Left(), func(name string) bool { return !strings.HasPrefix(name, "pods/") || !strings.HasSuffix(name, "-test") })
}
