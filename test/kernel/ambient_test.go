package kernel

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// The rules of pods and those of the host, for the kubelet's probes, by the agent's own code. A container that SELinux confines programs
// them here, in its own network namespace: in the host's, CRI-O does not confine it, and the kernel loads what it lacks.
func TestIstiosCNIAgentFailsBeforeAndProgramsAmbientsRulesAfter(t *testing.T) {
	lab.NotInTheCover(t, "that Istio's own CNI agent programs ambient's rules after the proof, and cannot before")
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	image := vm.CNIAgentImage()
	for _, backend := range []string{"nft", "legacy", "native-nft"} {
		t.Run(backend, func(t *testing.T) {
			vm := vm.On(t)
			vm.Unload()
			release := lab.NewRelease(t)
			release.CreateNamespace()
			for _, half := range []string{"pod", "host"} {
				phase, log := release.RunPod(cniAgent(t, vm.Name, image, backend, half))
				require.Equal(t, corev1.PodFailed, phase, log)
				_, failed, found := strings.Cut(log, "FAILED: ")
				require.True(t, found, log)
				require.NotContains(t, failed, "no such file", "it is not the kernel that refuses")
				t.Logf("%s: %s", half, failed)
			}
			require.NoError(t, release.Upgrade("backend: "+backend+"\nmesh: {ambient: true}\n"+onlyBriefly(vm)))
			release.WaitReadyOn(1)
			outcome, _ := release.Outcome(vm.Name)
			require.Contains(t, outcome.Line, "ambient's rules apply")
			for half, last := range map[string]string{"pod": "done: the pod's rules", "host": "done: the host's rules"} {
				phase, log := release.RunPod(cniAgent(t, vm.Name, image, backend, half))
				require.Equal(t, corev1.PodSucceeded, phase, log)
				require.Contains(t, log, last)
			}
		})
	}
}

// cniAgent is a pod that programs one half of ambient's rules, those of a mesh's pod or those of the host.
func cniAgent(t *testing.T, node, image, backend, half string) *corev1.Pod {
	t.Helper()
	kind, env := "iptables", []string{"FORCE_IPTABLES_BINARY", backend}
	if backend == "native-nft" {
		kind, env = "nftables", nil
	}
	pod := lab.IstioInit(t, node, nil, env...)
	pod.GenerateName = "cni-agent-"
	container := chart.ContainerOf(t, &pod.Spec, "istio-init")
	container.Image, container.Command, container.Args = image, []string{"cni-agent-stand-in", kind, half}, nil
	return pod
}
