package openshift

import (
	"fmt"
	"reflect"
	"slices"
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// Admission itself is asked: with an SCC that allows one thing less, whatever it is, some pod is refused or changed. Changed counts: a pod
// with another uid, group or label than it asks for is none that the chart's tests have seen.
func TestTheSCCsAllowNothingThatNoPodNeeds(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, objects chart.Objects) {
		t.Helper()
		r := install(t, objects)
		sccs := objects.SCCs
		if objects.Hooks != nil {
			sccs = slices.Concat(sccs, objects.Hooks.SCCs)
		}
		require.NotEmpty(t, sccs)
		for i := range sccs {
			scc := &sccs[i]
			kept := outcomes(t, r, scc.Name)
			require.NotEmpty(t, kept, "no pod is meant for %s", scc.Name)
			for _, less := range tightened(t, scc) {
				require.NoError(t, r.cluster.Put(&less.SecurityContextConstraints))
				require.False(t, equality.Semantic.DeepEqual(kept, outcomes(t, r, scc.Name)), "%s allows what no pod needs: every pod is admitted as it is with %s", scc.Name, less.name)
			}
			require.NoError(t, r.cluster.Put(scc))
			require.Equal(t, kept, outcomes(t, r, scc.Name))
		}
	}
	for _, scenario := range chart.Scenarios(t) {
		for event, args := range map[string][]string{"install": nil, "upgrade": {"--is-upgrade"}} {
			t.Run(scenario+" "+event, func(t *testing.T) {
				t.Parallel()
				check(t, chart.RenderFiles(t, []string{chart.Scenario(scenario)}, slices.Concat(onOpenShift, args)...))
			})
		}
	}
	t.Run("nodes with nothing to clean", func(t *testing.T) {
		t.Parallel()
		check(t, chart.Render(t, "{persist: {enabled: false}, signals: {nodeCondition: {enabled: true}}}", onOpenShift...))
	})
}

// outcomes are the pods that are stored of those meant for the SCC, nil where one is refused.
func outcomes(t *testing.T, r release, scc string) (stored []*corev1.PodSpec) {
	t.Helper()
	for _, pod := range r.pods {
		if pod.scc != scc {
			continue
		}
		got, err := r.cluster.Create(t.Context(), pod.by, &pod.Pod)
		if err != nil {
			stored = append(stored, nil)
			continue
		}
		takeToken(got)
		stored = append(stored, &got.Spec)
	}
	return stored
}

// tighter is an SCC that allows one thing less.
type tighter struct {
	securityv1.SecurityContextConstraints
	name string
}

// tightened returns all SCCs that allow one thing less than scc. A field that this does not know fails the test.
func tightened(t *testing.T, scc *securityv1.SecurityContextConstraints) (all []tighter) {
	t.Helper()
	with := func(name string, change func(*securityv1.SecurityContextConstraints)) {
		less := tighter{*scc.DeepCopy(), name}
		change(&less.SecurityContextConstraints)
		all = append(all, less)
	}
	field := func(scc *securityv1.SecurityContextConstraints, name string) reflect.Value {
		return reflect.ValueOf(scc).Elem().FieldByName(name)
	}
	// set gives the field the value, unless it has it.
	set := func(name string, value any) {
		if !reflect.DeepEqual(field(scc, name).Interface(), value) {
			with(fmt.Sprintf("%s: %v", name, reflect.Indirect(reflect.ValueOf(value))), func(scc *securityv1.SecurityContextConstraints) { field(scc, name).Set(reflect.ValueOf(value)) })
		}
	}
	// without leaves one entry out of a list.
	without := func(name string, except ...string) {
		for i := range field(scc, name).Len() {
			entry := field(scc, name).Index(i)
			if entry.Kind() == reflect.String && slices.Contains(except, entry.String()) {
				continue
			}
			with(fmt.Sprintf("%s without %v", name, entry), func(scc *securityv1.SecurityContextConstraints) {
				list := field(scc, name)
				list.Set(reflect.AppendSlice(list.Slice(0, i), list.Slice(i+1, list.Len())))
			})
		}
	}
	for i := range reflect.TypeFor[securityv1.SecurityContextConstraints]().NumField() {
		switch name := reflect.TypeFor[securityv1.SecurityContextConstraints]().Field(i).Name; name {
		case "TypeMeta", "ObjectMeta":
		case "Priority":
			// Not what is allowed, but which SCC is tried first: before others only if it must be.
			require.Zero(t, *scc.Priority)
		case "AllowPrivilegedContainer", "AllowHostDirVolumePlugin", "AllowHostNetwork", "AllowHostPorts", "AllowHostPID", "AllowHostIPC":
			set(name, false)
		case "ReadOnlyRootFilesystem":
			set(name, true)
		case "AllowPrivilegeEscalation", "DefaultAllowPrivilegeEscalation":
			if value := field(scc, name); !value.IsNil() || name == "AllowPrivilegeEscalation" {
				set(name, new(false))
			}
		case "DefaultAddCapabilities", "AllowedCapabilities", "AllowedFlexVolumes", "SeccompProfiles", "AllowedUnsafeSysctls", "Users", "Groups":
			without(name)
		case "Volumes":
			// What AllowHostDirVolumePlugin allows is not this list's to forbid.
			without(name, string(securityv1.FSTypeHostPath))
		case "RequiredDropCapabilities":
			set(name, []corev1.Capability{"ALL"})
		case "UserNamespaceLevel":
			set(name, securityv1.NamespaceLevelRequirePod)
		case "RunAsUser":
			if scc.RunAsUser.Type == securityv1.RunAsUserStrategyRunAsAny {
				set(name, securityv1.RunAsUserStrategyOptions{Type: securityv1.RunAsUserStrategyMustRunAsNonRoot})
			}
			set(name, securityv1.RunAsUserStrategyOptions{Type: securityv1.RunAsUserStrategyMustRunAsRange})
		case "SELinuxContext":
			set(name, securityv1.SELinuxContextStrategyOptions{Type: securityv1.SELinuxStrategyMustRunAs})
		case "FSGroup":
			set(name, securityv1.FSGroupStrategyOptions{Type: securityv1.FSGroupStrategyMustRunAs})
		case "SupplementalGroups":
			set(name, securityv1.SupplementalGroupsStrategyOptions{Type: securityv1.SupplementalGroupsStrategyMustRunAs})
		case "ForbiddenSysctls":
			// Without unsafe sysctls allowed, what is left are those that Kubernetes allows every pod.
		default:
			require.Failf(t, "unknown field", "what it means to allow less in %s", name)
		}
	}
	return all
}
