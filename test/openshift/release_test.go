// Package openshift asks one question: does OpenShift's own admission let the chart's pods in as they are, and does the chart ask for
// no more than that takes?
package openshift

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/openshift/admission"
)

// onOpenShift are helm's arguments for a cluster that serves OpenShift's API.
var onOpenShift = []string{"--api-versions", "security.openshift.io/v1"}

// registry is the secret for OpenShift's own registry, which OpenShift gives every service account.
var registry = []corev1.LocalObjectReference{{Name: "dockercfg"}}

// release is a release of the chart, and the cluster that it is installed in; the hooks of its uninstall are too.
type release struct {
	chart.Objects
	cluster *admission.Cluster
	pods    []pod
}

// pod is one that the release makes exist.
type pod struct {
	corev1.Pod
	what string
	by   user.Info // who creates it
	scc  string    // the SCC that is meant for it; "" if the chart creates none
}

// installed installs the scenario, rendered with more of helm's arguments.
func installed(t *testing.T, scenario string, args ...string) release {
	t.Helper()
	return install(t, chart.RenderFiles(t, []string{chart.Scenario(scenario)}, append(slices.Clone(onOpenShift), args...)...))
}

func install(t *testing.T, objects chart.Objects) release {
	t.Helper()
	hooks := objects.Hooks
	if hooks == nil {
		hooks = &chart.Objects{}
	}
	r := release{Objects: objects}
	for _, workload := range objects.DaemonSets {
		r.add("release", objects, workload.Spec.Template, admission.Controller("daemon-set-controller"))
	}
	for _, workload := range hooks.DaemonSets {
		r.add("uninstall's cleaner", *hooks, workload.Spec.Template, admission.Controller("daemon-set-controller"))
	}
	for _, workload := range hooks.Jobs {
		r.add("uninstall's Job", *hooks, workload.Spec.Template, admission.Controller("job-controller"))
	}
	for _, test := range objects.Tests {
		r.add("helm test", objects, corev1.PodTemplateSpec{ObjectMeta: test.ObjectMeta, Spec: test.Spec}, admission.Member())
	}
	require.GreaterOrEqual(t, len(r.pods), 2, "the scenario has pods")

	accounts := map[string]*corev1.ServiceAccount{}
	for _, pod := range r.pods {
		// One that the chart does not create is prepared.
		name := pod.Spec.ServiceAccountName
		accounts[name] = &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: chart.Namespace, Name: name}}
	}
	stored := []runtime.Object{admission.Namespace(chart.Namespace)}
	for _, some := range []chart.Objects{objects, *hooks} {
		for _, account := range some.ServiceAccounts {
			accounts[account.Name] = account.DeepCopy()
		}
		stored = slices.Concat(stored, pointers(some.SCCs), pointers(some.Roles), pointers(some.RoleBindings),
			pointers(some.ClusterRoles), pointers(some.ClusterRoleBindings))
	}
	for _, account := range accounts {
		account.ImagePullSecrets = registry
		stored = append(stored, account)
	}
	cluster, err := admission.New(stored...)
	require.NoError(t, err)
	r.cluster = cluster
	return r
}

// add adds the pod of a template, as its creator sends it.
func (r *release) add(what string, of chart.Objects, template corev1.PodTemplateSpec, by user.Info) {
	p := pod{what: what, by: by, Pod: corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}}
	p.Namespace, p.Name = chart.Namespace, fmt.Sprintf("pod-%d", len(r.pods))
	if len(of.SCCs) > 0 {
		p.scc = of.SCCs[0].Name
	}
	r.pods = append(r.pods, p)
}

// pointers are a manifest's objects as an API server takes them.
func pointers[T any, P interface {
	*T
	runtime.Object
}](objects []T) []runtime.Object {
	var all []runtime.Object
	for i := range objects {
		all = append(all, P(&objects[i]))
	}
	return all
}

// forEveryPod is for what holds for every pod of every scenario.
func forEveryPod(t *testing.T, check func(*testing.T, release, pod), args ...string) {
	t.Helper()
	for _, scenario := range chart.Scenarios(t) {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			r := installed(t, scenario, args...)
			for _, pod := range r.pods {
				t.Run(pod.what, func(t *testing.T) { check(t, r, pod) })
			}
		})
	}
}
