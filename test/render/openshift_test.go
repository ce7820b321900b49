package render

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

const openshift = "global: {platform: openshift}\n"

// What OpenShift has to admit: the release's pods, and those of its uninstall, with the SCC that each is to have.
func admitted(t *testing.T, values string) map[string]struct {
	pods []corev1.PodTemplateSpec
	scc  securityv1.SecurityContextConstraints
} {
	t.Helper()
	objects := chart.Render(t, openshift+values)
	require.Len(t, objects.SCCs, 1)
	require.Len(t, objects.Hooks.SCCs, 1)
	type row = struct {
		pods []corev1.PodTemplateSpec
		scc  securityv1.SecurityContextConstraints
	}
	return map[string]row{
		"release":   {[]corev1.PodTemplateSpec{objects.DaemonSet(t).Spec.Template}, objects.SCCs[0]},
		"uninstall": {[]corev1.PodTemplateSpec{objects.Hooks.DaemonSet(t).Spec.Template, objects.Hooks.Job(t).Spec.Template}, objects.Hooks.SCCs[0]},
	}
}

// The SCC that follows from the pods, compared as a whole: what either side gains or loses is red.
func TestTheSCCAllowsWhatThePodsUseAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, values := range []string{"", "repair: {enabled: false}", "verify: {enabled: true}\nbackend: legacy"} {
		for name, row := range admitted(t, values) {
			t.Run(name+" "+values, func(t *testing.T) {
				t.Parallel()
				want := needed(t, row.pods)
				want.TypeMeta, want.ObjectMeta = row.scc.TypeMeta, row.scc.ObjectMeta
				got := row.scc
				slices.Sort(got.AllowedCapabilities)
				slices.Sort(got.Volumes)
				require.Equal(t, want, got)
			})
		}
	}
}

// needed is the least SCC that admits pods and changes nothing that they ask for. Any strategy for groups other than RunAsAny would
// give them the namespace's.
func needed(t *testing.T, pods []corev1.PodTemplateSpec) securityv1.SecurityContextConstraints {
	t.Helper()
	scc := securityv1.SecurityContextConstraints{
		Priority:                 new(int32(0)),
		AllowPrivilegeEscalation: new(false),
		DefaultAddCapabilities:   []corev1.Capability{},
		RequiredDropCapabilities: []corev1.Capability{"ALL"},
		AllowedCapabilities:      []corev1.Capability{},
		ReadOnlyRootFilesystem:   true,
		RunAsUser:                securityv1.RunAsUserStrategyOptions{Type: securityv1.RunAsUserStrategyMustRunAsNonRoot},
		SELinuxContext:           securityv1.SELinuxContextStrategyOptions{Type: securityv1.SELinuxStrategyMustRunAs},
		FSGroup:                  securityv1.FSGroupStrategyOptions{Type: securityv1.FSGroupStrategyRunAsAny},
		SupplementalGroups:       securityv1.SupplementalGroupsStrategyOptions{Type: securityv1.SupplementalGroupsStrategyRunAsAny},
		Users:                    []string{},
		Groups:                   []string{},
	}
	capabilities, volumes, profiles := map[corev1.Capability]bool{}, map[securityv1.FSType]bool{}, map[string]bool{}
	for _, template := range pods {
		pod := template.Spec
		scc.AllowHostNetwork = scc.AllowHostNetwork || pod.HostNetwork
		scc.AllowHostPID = scc.AllowHostPID || pod.HostPID
		scc.AllowHostIPC = scc.AllowHostIPC || pod.HostIPC
		for _, volume := range pod.Volumes {
			volumes[typeOf(t, volume)] = true
		}
		if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
			volumes[securityv1.FSProjected] = true
		}
		podContext := pod.SecurityContext
		if podContext == nil {
			podContext = &corev1.PodSecurityContext{}
		}
		require.Empty(t, podContext.SupplementalGroups)
		require.Nil(t, podContext.FSGroup)
		require.Empty(t, podContext.Sysctls)
		require.Nil(t, podContext.SELinuxOptions)
		require.Nil(t, podContext.SeccompProfile)
		for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
			context := container.SecurityContext
			require.Equal(t, []corev1.Capability{"ALL"}, context.Capabilities.Drop, container.Name)
			for _, capability := range context.Capabilities.Add {
				capabilities[capability] = true
			}
			scc.AllowPrivilegedContainer = scc.AllowPrivilegedContainer || *context.Privileged
			*scc.AllowPrivilegeEscalation = *scc.AllowPrivilegeEscalation || *context.AllowPrivilegeEscalation
			scc.ReadOnlyRootFilesystem = scc.ReadOnlyRootFilesystem && *context.ReadOnlyRootFilesystem
			if *context.RunAsUser == 0 {
				scc.RunAsUser.Type = securityv1.RunAsUserStrategyRunAsAny
			}
			if context.SELinuxOptions != nil {
				scc.SELinuxContext.Type = securityv1.SELinuxStrategyRunAsAny
			}
			if context.SeccompProfile != nil {
				require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, context.SeccompProfile.Type, container.Name)
				profiles[corev1.SeccompProfileRuntimeDefault] = true
			}
			for _, port := range container.Ports {
				scc.AllowHostPorts = scc.AllowHostPorts || port.HostPort != 0
			}
		}
	}
	scc.AllowedCapabilities = append(scc.AllowedCapabilities, slices.Sorted(maps.Keys(capabilities))...)
	scc.Volumes = slices.Sorted(maps.Keys(volumes))
	scc.AllowHostDirVolumePlugin = volumes[securityv1.FSTypeHostPath]
	scc.SeccompProfiles = slices.Sorted(maps.Keys(profiles))
	return scc
}

// typeOf is the name of the volume's only source, as an SCC writes it: the field's.
func typeOf(t *testing.T, volume corev1.Volume) securityv1.FSType {
	t.Helper()
	source := reflect.ValueOf(volume.VolumeSource)
	for i := range source.NumField() {
		if !source.Field(i).IsNil() {
			name, _, _ := strings.Cut(source.Type().Field(i).Tag.Get("json"), ",")
			return securityv1.FSType(name)
		}
	}
	require.Failf(t, "no source", "volume %s", volume.Name)
	return ""
}

// An SCC knows no paths, so what may be mounted stands here.
func TestOnOpenShiftThePodsMountTheSamePathsOfTheHostAsElsewhere(t *testing.T) {
	t.Parallel()
	want := map[string][]string{"release": {"/", "/etc/modules-load.d"}, "uninstall": {"/etc/modules-load.d"}}
	for name, row := range admitted(t, "") {
		var paths []string
		for _, template := range row.pods {
			for _, volume := range template.Spec.Volumes {
				if volume.HostPath != nil {
					paths = append(paths, volume.HostPath.Path)
				}
			}
		}
		require.Equal(t, want[name], paths, name)
	}
}

func TestTheSCCIsTheReleasesOwnAndItsPodsAskForIt(t *testing.T) {
	t.Parallel()
	names := map[string]string{}
	for _, release := range []struct{ namespace, name string }{
		{"a", "b"}, {"b", "a"}, {"a-b", "c"}, {"a", "b-c"},
	} {
		objects := chart.Render(t, openshift, "--namespace", release.namespace, "--set", "fullnameOverride="+release.name)
		for _, own := range []struct {
			objects  chart.Objects
			template corev1.PodTemplateSpec
		}{
			{objects, objects.DaemonSet(t).Spec.Template},
			{*objects.Hooks, objects.Hooks.DaemonSet(t).Spec.Template},
			{*objects.Hooks, objects.Hooks.Job(t).Spec.Template},
		} {
			name, owner := own.objects.SCCs[0].Name, release.namespace+" "+own.objects.Roles[0].Name
			require.Contains(t, []string{"", owner}, names[name], "%s is not unique", name)
			names[name] = owner
			require.Equal(t, name, own.template.Annotations[securityv1.RequiredSCCAnnotation])

			require.Equal(t, rbacv1.PolicyRule{
				APIGroups: []string{"security.openshift.io"}, Resources: []string{"securitycontextconstraints"},
				ResourceNames: []string{name}, Verbs: []string{"use"},
			}, own.objects.Roles[0].Rules[len(own.objects.Roles[0].Rules)-1])
			require.Equal(t, rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "Role", Name: own.objects.Roles[0].Name}, own.objects.RoleBindings[0].RoleRef)
			require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: own.template.Spec.ServiceAccountName, Namespace: release.namespace}}, own.objects.RoleBindings[0].Subjects)
			require.Equal(t, release.namespace, own.objects.Roles[0].Namespace)
			require.Equal(t, release.namespace, own.objects.RoleBindings[0].Namespace)
		}
	}
}

func TestAnSCCIsMadeOnOpenShiftUnlessAnAdministratorDoesIt(t *testing.T) {
	t.Parallel()
	api := []string{"--api-versions", "security.openshift.io/v1"}
	for _, row := range []struct {
		name, values string
		args         []string
		want         bool
	}{
		{"elsewhere", "", nil, false},
		{"another platform", "global: {platform: gke}", nil, false},
		{"the mesh's platform", openshift, nil, true},
		{"the API is there", "", api, true},
		{"an administrator's", openshift + "openshift: {scc: {create: false}}", api, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			objects := chart.Render(t, row.values, row.args...)
			for _, some := range []chart.Objects{objects, *objects.Hooks} {
				require.Equal(t, row.want, len(some.SCCs) == 1)
			}
			require.Equal(t, row.want, len(objects.Roles) == 1)
			require.Equal(t, row.want, len(objects.RoleBindings) == 1)
			for _, template := range []corev1.PodTemplateSpec{
				objects.DaemonSet(t).Spec.Template, objects.Hooks.DaemonSet(t).Spec.Template, objects.Hooks.Job(t).Spec.Template,
			} {
				require.Equal(t, row.want, template.Annotations[securityv1.RequiredSCCAnnotation] != "")
			}
		})
	}
	own := chart.Render(t, openshift+"openshift: {scc: {create: false}}\npodAnnotations: {openshift.io/required-scc: theirs}")
	require.Equal(t, "theirs", own.DaemonSet(t).Spec.Template.Annotations[securityv1.RequiredSCCAnnotation])
	require.Equal(t, "theirs", own.Hooks.Job(t).Spec.Template.Annotations[securityv1.RequiredSCCAnnotation])
}
