package render

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// A kubelet may be older than its API server, so what a pod is must not follow the API server's version.
func TestThePodIsTheSameOnEveryKubernetes(t *testing.T) {
	t.Parallel()
	for _, name := range chart.Scenarios(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schemas := chart.Schemas(t) // those that TestEveryVersionOfKubernetesKnowsEveryFieldOfEveryScenario renders for
			versions := []string{schemas[0].Version, schemas[len(schemas)-1].Version}
			switch name {
			case "signals": // which is refused before
				versions[0] = "1.30.0"
			case "default":
				versions = append(versions, "1.25.0", "1.29.9", "1.30.0", "1.31.0", "1.34.0", "1.36.0-beta.1", "1.37.0", "1.99.0")
			}
			render := func(version string) chart.Objects {
				return chart.RenderFiles(t, []string{chart.Scenario(name)}, "--kube-version", version)
			}
			want := render(chart.KubeVersion)
			for _, version := range versions {
				require.Equal(t, want, render(version), version)
			}
			for _, pod := range pods(t, want) {
				for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
					require.Empty(t, container.RestartPolicyRules, container.Name)
					require.Equal(t, container.Name == "signal", container.RestartPolicy != nil, container.Name)
				}
			}
		})
	}
}

// watch may end the pod's process 1 only if it sees it and has its uid, which is the pod's with containerd.
func TestOnlyRepairSharesProcessesAndOnlyWithinThePod(t *testing.T) {
	t.Parallel()
	root := new(int64(0))
	for values, want := range map[string]*bool{"": new(true), "repair: {enabled: false}": nil} {
		objects := chart.Render(t, values)
		pod := objects.Pod(t)
		require.Equal(t, want, pod.ShareProcessNamespace)
		require.False(t, pod.HostPID)
		require.Equal(t, want != nil, env(objects.Container(t, "watch"))["ISTIO_OS_INIT_REPAIR"] == "true")
		require.Equal(t, &corev1.PodSecurityContext{RunAsUser: root, RunAsGroup: root}, pod.SecurityContext)
		require.Equal(t, root, objects.Container(t, "watch").SecurityContext.RunAsUser)
	}
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		pod := objects.Pod(t)
		for _, container := range append(pod.InitContainers, pod.Containers...) {
			require.NotNil(t, container.SecurityContext.RunAsUser, "%s would take the pod's", container.Name)
			require.NotNil(t, container.SecurityContext.RunAsGroup, "%s would take the pod's", container.Name)
		}
	})
}

// The probe ends with the first proof. One that could fail for good would start watch again, and with it the pace of its attempts.
func TestTheStartupProbeOfWatchIsTheVerdict(t *testing.T) {
	t.Parallel()
	forEveryScenario(t, func(t *testing.T, objects chart.Objects) {
		watch := objects.Container(t, "watch")
		require.Equal(t, &corev1.Probe{
			ProbeHandler:     corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "/opt/istio-os-init/report", "--ready"}}},
			PeriodSeconds:    watch.StartupProbe.PeriodSeconds, // a value's, see TestProbesAreWhatTheValuesSay
			TimeoutSeconds:   300,
			FailureThreshold: 1<<31 - 1,
		}, watch.StartupProbe)
		for _, container := range objects.Pod(t).InitContainers {
			require.Nil(t, container.StartupProbe, container.Name)
		}
	})
}

func TestAValueOfRepairFromAnEarlierReleaseIsRefusedWithWhatToSet(t *testing.T) {
	t.Parallel()
	const on, off = "Set repair.enabled=true to prove again after a drift and after a failed proof.", "Set repair.enabled=false to leave a pod that is not proven as it is."
	for _, helm := range chart.Helms {
		for how, manifest := range map[string]func(t *testing.T, value string) (string, error){
			"in a file": func(t *testing.T, value string) (string, error) {
				return helm.Manifest(t, chart.Path(), []string{chart.ValuesFile(t, "repair: "+value)})
			},
			"by --set": func(t *testing.T, value string) (string, error) {
				return helm.Manifest(t, chart.Path(), nil, "--set", "repair="+value)
			},
			"in a mesh chart": func(t *testing.T, value string) (string, error) {
				return helm.Manifest(t, chart.Mesh(t), []string{chart.ValuesFile(t, "istio-os-init: {repair: "+value+"}")})
			},
		} {
			t.Run(string(helm)+" "+how, func(t *testing.T) {
				t.Parallel()
				for value, want := range map[string]string{"auto": on, "rule": on, "sandbox": on, "never": off} {
					if how != "in a file" && value != "auto" { // it is one template that refuses them
						continue
					}
					rendered, err := manifest(t, value)
					require.ErrorContains(t, err, `repair "`+value+`" is no longer a value: allowed is repair.enabled, true or false. `+want)
					require.NotContains(t, rendered, "kind:", "something was rendered")
				}
			})
		}
	}
}
