package render

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

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
			require.Equal(t, []corev1.NodeSelectorRequirement{{Key: label, Operator: corev1.NodeSelectorOpIn, Values: rhelFamily}},
				terms[0].MatchExpressions)
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
	// terms are alternatives: the preset has to stand in each
	require.Equal(t, []corev1.NodeSelectorTerm{
		{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: corev1.NodeSelectorOpExists}, preset}, MatchFields: field("node-a")},
		{MatchExpressions: []corev1.NodeSelectorRequirement{preset}, MatchFields: field("node-b")},
	}, nodeTerms(pod))
	require.Len(t, pod.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	require.Len(t, pod.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	require.Equal(t, map[string]string{"pool": "mesh", "kubernetes.io/os": "linux"}, pod.NodeSelector)
}

func TestWithoutAPresetTheUsersAffinityIsLeftAlone(t *testing.T) {
	t.Parallel()
	terms := nodeTerms(chart.Render(t, `
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]
`).Pod(t))
	require.Equal(t, []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "a", Operator: corev1.NodeSelectorOpExists}}}}, terms)
}

func nodeTerms(pod corev1.PodSpec) []corev1.NodeSelectorTerm {
	return pod.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
}
