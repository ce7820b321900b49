package render

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	securityv1 "github.com/openshift/api/security/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

const openshift = "global: {platform: openshift}\n"

// An SCC knows no paths, so what may be mounted stands here. Whether the pods are admitted, and the SCCs allow no more than that takes,
// OpenShift's own admission says in test/openshift.
func TestOnOpenShiftThePodsMountTheSamePathsOfTheHostAsElsewhere(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, openshift)
	for _, row := range []struct {
		pods []corev1.PodTemplateSpec
		want []string
	}{
		{[]corev1.PodTemplateSpec{objects.DaemonSet(t).Spec.Template}, []string{"/", "/etc/modules-load.d"}},
		{[]corev1.PodTemplateSpec{objects.Hooks.DaemonSet(t).Spec.Template, objects.Hooks.Job(t).Spec.Template}, []string{"/etc/modules-load.d"}},
	} {
		var paths []string
		for _, template := range row.pods {
			for _, volume := range template.Spec.Volumes {
				if volume.HostPath != nil {
					paths = append(paths, volume.HostPath.Path)
				}
			}
		}
		require.Equal(t, row.want, paths)
	}
}

// Of the capabilities only istio-init's are left, which verify has.
func TestOnOpenShiftAPodThatLooksOnlyIsAllowedNoCapabilityToLoad(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, openshift+"load: {enabled: false}")
	require.Equal(t, []corev1.Capability{"NET_ADMIN", "NET_RAW"}, objects.SCCs[0].AllowedCapabilities)
	require.Nil(t, objects.Hooks)
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

// Where helm asks no cluster. What it finds on one, test/kubernetes asks.
func TestOnOpenShiftTheNotesNameTheAnnotationThatLiftsADefaultNodeSelector(t *testing.T) {
	t.Parallel()
	const note = "\nNOTE: if this cluster has a default node selector, it keeps the pods off all\nother nodes. To lift it:\n\n" +
		"  kubectl annotate --overwrite namespace istio-system openshift.io/node-selector=\n"
	for values, want := range map[string]bool{"": false, openshift: true, openshift + "openshift: {scc: {create: false}}": true} {
		for _, helm := range chart.Helms {
			require.Equal(t, want, strings.Contains(notes(t, helm, values), note), "%s: %s", helm, values)
		}
	}
}

// notes returns what helm prints at the end of an install, as an object: without a cluster it renders only these.
func notes(t *testing.T, helm chart.Helm, values string) string {
	t.Helper()
	path := chart.Copy(t)
	template := "kind: Notes\nnotes: {{ include (print $.Template.BasePath \"/NOTES.txt\") . | toJson }}\n"
	require.NoError(t, os.WriteFile(filepath.Join(path, "templates", "notes.yaml"), []byte(template), 0o600))
	manifest, err := helm.Manifest(t, path, []string{chart.ValuesFile(t, values)}, "--show-only", "templates/notes.yaml")
	require.NoError(t, err)
	var object struct{ Notes string }
	require.NoError(t, yaml.Unmarshal([]byte(manifest), &object))
	return object.Notes + "\n"
}
