package render

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// asked is what every pod on a node asks of its labels, and what a test adds: a virtual node has no kernel to prepare.
func asked(more ...corev1.NodeSelectorRequirement) []corev1.NodeSelectorRequirement {
	return append([]corev1.NodeSelectorRequirement{
		{Key: "type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"virtual-kubelet"}},
		{Key: "eks.amazonaws.com/compute-type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"fargate"}},
	}, more...)
}

var rhelFamily = []string{"rhel", "rhcos", "centos", "scos", "rocky", "almalinux", "ol", "fedora"}

func TestAPresetSelectsTheRHELFamilyByLabel(t *testing.T) {
	t.Parallel()
	for preset, label := range map[string]string{
		"openshift": "node.openshift.io/os_id",
		"rhel-nfd":  "feature.node.kubernetes.io/system-os_release.ID",
	} {
		t.Run(preset, func(t *testing.T) {
			t.Parallel()
			terms := nodeTerms(chart.Render(t, "nodes: {preset: "+preset+"}").Pod(t))
			require.Len(t, terms, 1)
			require.Equal(t, asked(corev1.NodeSelectorRequirement{Key: label, Operator: corev1.NodeSelectorOpIn, Values: rhelFamily}), terms[0].MatchExpressions)
		})
	}
}

func TestAPresetAddsToTheUsersSelectionAndTakesNothingFromIt(t *testing.T) {
	t.Parallel()
	pod := chart.Render(t, `
nodes: {preset: rhel-nfd}
nodeSelector: {pool: mesh, kubernetes.io/os: windows}
affinity:
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 1, podAffinityTerm: {topologyKey: zone}}
  nodeAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - {weight: 2, preference: {matchExpressions: [{key: c, operator: Exists}]}}
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions: [{key: a, operator: Exists}]
          matchFields: [{key: metadata.name, operator: In, values: [node-a]}]
        - matchFields: [{key: metadata.name, operator: In, values: [node-b]}]
`).Pod(t)
	preset := corev1.NodeSelectorRequirement{Key: "feature.node.kubernetes.io/system-os_release.ID", Operator: corev1.NodeSelectorOpIn, Values: rhelFamily}
	field := func(name string) []corev1.NodeSelectorRequirement {
		return []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}
	}
	// terms are alternatives: each needs the preset
	require.Equal(t, []corev1.NodeSelectorTerm{
		{MatchExpressions: append([]corev1.NodeSelectorRequirement{{Key: "a", Operator: corev1.NodeSelectorOpExists}}, asked(preset)...), MatchFields: field("node-a")},
		{MatchExpressions: asked(preset), MatchFields: field("node-b")},
	}, nodeTerms(pod))
	require.Len(t, pod.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	require.Len(t, pod.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	require.Equal(t, map[string]string{"pool": "mesh", "kubernetes.io/os": "linux"}, pod.NodeSelector)
}

// Every kind of selection that a user may have, with every preset: the preset is in each of the user's terms that can select a node,
// and nothing else of the user's has changed.
func TestEveryPresetGoesWithEverySelectionOfTheUsers(t *testing.T) {
	t.Parallel()
	const (
		expression = `{key: zone, operator: In, values: [a]}`
		field      = `{key: metadata.name, operator: In, values: [node-a]}`
		selector   = "nodeSelector: {pool: mesh}\n"
	)
	required := func(terms string) string {
		return "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [" + terms + "]}}}\n"
	}
	for preset, label := range map[string]string{
		"all":       "",
		"openshift": "node.openshift.io/os_id",
		"rhel-nfd":  "feature.node.kubernetes.io/system-os_release.ID",
	} {
		for name, values := range map[string]string{
			"nothing":          "",
			"nodeSelector":     selector,
			"no affinity":      "affinity: {nodeAffinity: {}}",
			"expressions":      required("{matchExpressions: [" + expression + "]}"),
			"fields":           required("{matchFields: [" + field + "]}"),
			"both":             selector + required("{matchExpressions: ["+expression+", "+expression+"], matchFields: ["+field+"]}"),
			"alternatives":     required("{matchExpressions: [" + expression + "]}, {matchFields: [" + field + "]}"),
			"a term for none":  required("{}, {matchExpressions: [" + expression + "]}"),
			"none but for one": required("{}"),
			"preferred": selector + "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: " +
				"[{weight: 3, preference: {matchExpressions: [" + expression + "]}}]}}",
			"pods": "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone}]}}",
		} {
			t.Run(preset+" and "+name, func(t *testing.T) {
				t.Parallel()
				own := struct {
					NodeSelector map[string]string
					Affinity     *corev1.Affinity
				}{}
				require.NoError(t, yaml.UnmarshalStrict([]byte(values), &own))
				want := &corev1.Affinity{}
				if own.Affinity != nil {
					want = own.Affinity.DeepCopy()
				}
				if want.NodeAffinity == nil {
					want.NodeAffinity = &corev1.NodeAffinity{}
				}
				if want.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
					want.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{
						NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{}}},
					}
				}
				terms := want.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
				for i := range terms {
					if terms[i].MatchExpressions == nil && terms[i].MatchFields == nil {
						continue // selects no node
					}
					terms[i].MatchExpressions = append(terms[i].MatchExpressions, asked()...)
					if label != "" {
						terms[i].MatchExpressions = append(terms[i].MatchExpressions, corev1.NodeSelectorRequirement{Key: label, Operator: corev1.NodeSelectorOpIn, Values: rhelFamily})
					}
					if len(terms[i].MatchFields) == 0 {
						terms[i].MatchFields = nil
					}
				}
				pod := chart.Render(t, values+"\nnodes: {preset: "+preset+"}").Pod(t)
				require.Equal(t, want, pod.Affinity)
				selected := map[string]string{"kubernetes.io/os": "linux"}
				maps.Copy(selected, own.NodeSelector)
				require.Equal(t, selected, pod.NodeSelector)
			})
		}
	}
}

func TestTheHostsOSReleaseIsAskedForOnlyOnRequest(t *testing.T) {
	t.Parallel()
	require.NotContains(t, env(chart.Render(t, "").Container(t, "load")), "ISTIO_OS_INIT_OS_RELEASE")
	asked := env(chart.Render(t, "nodes: {osRelease: [rhel, openEuler]}").Container(t, "load"))
	require.Equal(t, "rhel openeuler", asked["ISTIO_OS_INIT_OS_RELEASE"])
}

func nodeTerms(pod corev1.PodSpec) []corev1.NodeSelectorTerm {
	return pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}
