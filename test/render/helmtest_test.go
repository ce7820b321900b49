package render

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// To the letter what the DaemonSet's verify is, but that it fails if the rules are refused, and sees nothing of load.
func TestHelmTestProvesAsTheDaemonSetDoesOnANodeOfItsSelection(t *testing.T) {
	t.Parallel()
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		test, own := objects.Test(t), objects.Pod(t)
		require.Len(t, test.Spec.Containers, 1, "Helm 3 shows the log of a pod's only container")
		require.Empty(t, test.Spec.InitContainers)
		got := objects.TestContainer(t)
		require.Equal(t, "ISTIO_OS_INIT_TEST", got.Env[0].Name)
		require.Equal(t, "spec.nodeName", got.Env[0].ValueFrom.FieldRef.FieldPath)
		if env(objects.Container(t, "load"))["ISTIO_OS_INIT_NAMES_DECIDE"] == "false" { // otherwise only helm test proves
			want := objects.Container(t, "verify")
			require.Equal(t, want.Image, got.Image)
			require.Equal(t, want.ImagePullPolicy, got.ImagePullPolicy)
			require.Equal(t, want.Command, got.Command)
			require.Equal(t, want.Args, got.Args)
			require.Equal(t, want.SecurityContext, got.SecurityContext)
			require.Equal(t, want.VolumeMounts[1:], got.VolumeMounts)
			require.Equal(t, want.Resources, got.Resources)
			require.Equal(t, "load", want.VolumeMounts[0].Name)
			require.Equal(t, volume(t, own, "verify"), test.Spec.Volumes[0])
			require.Equal(t, want.Env, got.Env[1:])
		}
		require.Len(t, test.Spec.Volumes, 2)
		require.Equal(t, volume(t, own, "config"), test.Spec.Volumes[1])
		require.Equal(t, own.NodeSelector, test.Spec.NodeSelector)
		require.Equal(t, own.Affinity, test.Spec.Affinity)
		require.Equal(t, own.Tolerations, test.Spec.Tolerations)
		require.Equal(t, own.ImagePullSecrets, test.Spec.ImagePullSecrets)
		require.Equal(t, own.ServiceAccountName, test.Spec.ServiceAccountName)
		require.Equal(t, corev1.RestartPolicyNever, test.Spec.RestartPolicy)
		require.False(t, *test.Spec.AutomountServiceAccountToken)
		require.False(t, *test.Spec.EnableServiceLinks)
		require.False(t, test.Spec.HostNetwork || test.Spec.HostPID || test.Spec.HostIPC)
		require.Nil(t, test.Spec.SecurityContext)
		require.Nil(t, test.Spec.ShareProcessNamespace)
	})
}

func TestThePodOfHelmTestIsNobodyElsesAndStaysForItsLog(t *testing.T) {
	t.Parallel()
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		test, daemonSet := objects.Test(t), objects.DaemonSet(t)
		require.Equal(t, daemonSet.Name+"-test", test.Name)
		require.Equal(t, "test", test.Annotations["helm.sh/hook"])
		require.Equal(t, "before-hook-creation", test.Annotations["helm.sh/hook-delete-policy"], "Helm 3 would delete it before it asks for the log")
		require.Equal(t, "hook-failed", test.Annotations["helm.sh/hook-output-log-policy"])
		require.NotSubset(t, test.Labels, daemonSet.Spec.Selector.MatchLabels, "the DaemonSet takes it for one of its own")
		require.Equal(t, daemonSet.Spec.Selector.MatchLabels["app.kubernetes.io/name"]+"-test", test.Labels["app.kubernetes.io/name"])
		require.Equal(t, "false", test.Labels["sidecar.istio.io/inject"])
		require.Equal(t, "none", test.Labels["istio.io/dataplane-mode"])
		require.Equal(t, daemonSet.Spec.Template.Labels["team"], test.Labels["team"])
		require.Equal(t, daemonSet.Spec.Template.Annotations["example.com/owner"], test.Annotations["example.com/owner"])
	})
}
