package kernel

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// The VM runs no kube-proxy, and none of netfilter's modules may be loaded for its network: plain routes (scripts/lab/routes.sh).
func TestAPodOnTheVMReachesTheAPIServerAndPodsOfEveryOtherNodeAndTheyReachIt(t *testing.T) {
	lab.NotInTheCover(t, "that the lab's own routes lead from a pod on the VM to pods of every other node and back")
	vm := lab.TheVM(t)
	vm.DenyAutoload()
	vm.Unload()
	release := lab.NewRelease(t)
	release.CreateNamespace()
	requireAPIServer(t, release, vm.Name)

	onVM := serve(t, release, vm.Name)
	for _, node := range lab.Containers(t) {
		t.Run(node, func(t *testing.T) {
			require.Equal(t, node+"\n", curl(t, release, vm.Name, "http://"+serve(t, release, node)))
			require.Equal(t, vm.Name+"\n", curl(t, release, node, "http://"+onVM))
		})
	}
}

// requireAPIServer requires that a pod on a node reaches the API server by its cluster address, as every client in a pod does.
func requireAPIServer(t *testing.T, release *lab.Release, node string) {
	t.Helper()
	require.Equal(t, "ok", curl(t, release, node, "--insecure", "https://$(KUBERNETES_SERVICE_HOST):$(KUBERNETES_SERVICE_PORT)/readyz"))
}

// curl runs curl in a pod on a node and returns what it prints.
func curl(t *testing.T, release *lab.Release, node string, args ...string) string {
	t.Helper()
	command := append([]string{"curl", "--silent", "--show-error", "--fail", "--connect-timeout", "10", "--retry", "100", "--retry-delay", "1", "--retry-max-time", "120", "--retry-connrefused"}, args...)
	phase, log := release.RunPod(pod(t, node, command...))
	require.Equal(t, corev1.PodSucceeded, phase, log)
	return log
}

// serve starts a pod on a node that answers HTTP with the node's name, and returns its address.
func serve(t *testing.T, release *lab.Release, node string) string {
	t.Helper()
	// The mesh's image has perl, as every Debian has, and no server.
	server := pod(t, node, "perl", "-MIO::Socket::INET", "-e", `
$socket = IO::Socket::INET->new(LocalPort => 8080, Listen => 5) or die $!;
while ($client = $socket->accept) { 1 while <$client> =~ /\S/; print $client "HTTP/1.0 200 OK\r\n\r\n`+node+`\n"; close $client }`)
	pods := lab.Client(t).CoreV1().Pods(release.Namespace)
	created, err := pods.Create(t.Context(), server, metav1.CreateOptions{})
	require.NoError(t, err)
	release.WaitFor("the server does not run", func() bool {
		created, err = pods.Get(t.Context(), created.Name, metav1.GetOptions{})
		require.NoError(t, err)
		return created.Status.Phase == corev1.PodRunning
	})
	return created.Status.PodIP + ":8080"
}

// pod is one of the mesh's image on a node, with a command of its own.
func pod(t *testing.T, node string, command ...string) *corev1.Pod {
	t.Helper()
	made := lab.IstioInit(t, node, nil)
	made.GenerateName = "network-"
	container := chart.ContainerOf(t, &made.Spec, "istio-init")
	container.Command, container.Args, container.SecurityContext = command, nil, nil
	return made
}
