package kubernetes

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/internal/docs"
)

// The page of who searches for the error, from top to bottom. What needs a node is run elsewhere: `report` by test/cluster, since the
// chart's README has the same line, and a node's own commands by test/kernel.
func TestEveryCommandOfThePageOnTheErrorWorks(t *testing.T) {
	t.Parallel()
	p := start(t)
	commandsOf := func(page string) []string {
		return slices.Concat(docs.Commands(t, filepath.Join(chart.Path(), page))...)
	}
	commands := commandsOf("docs/istio-init-fails.md")
	require.Equal(t, commands, commandsOf("docs/istio-init-fails.zh.md"), "both languages have the same commands")
	readme := commandsOf("README.md")

	dir, path := chart.Workspace(t), t.TempDir()
	chart.UseHelm(t)
	require.NoError(t, os.Symlink(filepath.Join(os.Getenv("KUBERNETES_BINARIES"), "kubectl"), filepath.Join(path, "kubectl")))
	manifest, err := exec.CommandContext(t.Context(), filepath.Join(chart.Root(), "scripts", "manifest")).Output()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "istio-os-init.yaml"), manifest, 0o600))
	run := func(command string) string {
		shell := exec.CommandContext(t.Context(), "sh", "-euc", command)
		shell.Dir = dir
		shell.Env = append(os.Environ(), "PATH="+path+":"+os.Getenv("PATH"), "KUBECONFIG="+p.Kubeconfig)
		output, err := shell.CombinedOutput()
		require.NoError(t, err, "%s\n%s", command, output)
		return string(output)
	}
	p.copied(t, chart.Namespace)
	ran := 0
	for _, command := range commands {
		switch {
		case strings.Contains(command, " exec "):
			require.Contains(t, readme, command)
			continue
		case !strings.HasPrefix(command, "kubectl ") && !strings.HasPrefix(command, "helm ") && !strings.HasPrefix(command, "sed "): // a node's
			continue
		case strings.HasPrefix(command, "kubectl apply "): // what the page has done by Helm before
			run("helm uninstall istio-os-init --namespace " + chart.Namespace + " --no-hooks --wait")
		}
		output := run(strings.ReplaceAll(command, "WORKER", "c"))
		if strings.HasSuffix(command, "grep image:") {
			require.Regexp(t, `^(\s*image: "?docker\.m\.daocloud\.io/istio/proxyv2:1\.26\.8"?\n)+$`, output)
		}
		ran++
	}
	require.GreaterOrEqual(t, ran, 10)
	before := commands[slices.IndexFunc(commands, func(command string) bool { return strings.Contains(command, " delete daemonset ") })]
	require.Equal(t, "No resources found\n", run(before), "again, over what has been installed")
	mirrored, err := os.ReadFile(filepath.Join(dir, "istio-os-init.yaml"))
	require.NoError(t, err)
	require.Regexp(t, `image: "?docker\.m\.daocloud\.io/istio/proxyv2:`, string(mirrored))
	require.NotContains(t, string(mirrored), "registry.istio.io")
	p.RolledOut(t, chart.Namespace, chart.Release) // by the last command that installs
}

// The workload of the page that this project replaces, as far as the API sees it. Over it Helm's own refusal speaks of annotations.
func TestTheCopiedDaemonSetIsNamedWithHowToRemoveIt(t *testing.T) {
	t.Parallel()
	p := start(t)
	const namespace = "copied"
	p.copied(t, namespace)
	remedy := "kubectl --namespace copied delete daemonset istio-os-init"

	output, err := p.Helm(t, namespace, "upgrade", "--install", chart.Release, chart.Path())
	require.ErrorContains(t, err, "DaemonSet istio-os-init in namespace copied is not of this release")
	require.Contains(t, output+err.Error(), remedy)

	output, err = p.Helm(t, namespace, "upgrade", "--install", "mesh", chart.Path())
	require.NoError(t, err, output)
	require.Contains(t, output, "NOTE: namespace copied has another DaemonSet istio-os-init")
	require.Contains(t, output, "kubectl -n copied delete daemonset istio-os-init")

	require.NoError(t, p.Client.AppsV1().DaemonSets(namespace).Delete(t.Context(), "istio-os-init", metav1.DeleteOptions{}))
	for _, release := range []string{chart.Release, chart.Release, "mesh"} { // an upgrade of ours is none of another's
		output, err = p.Helm(t, namespace, "upgrade", "--install", release, chart.Path())
		require.NoError(t, err, output)
		require.NotContains(t, output, "another DaemonSet")
	}
}

// copied creates the DaemonSet that is copied from page to page, in a namespace that may be there already.
func (p *plane) copied(t *testing.T, namespace string) {
	t.Helper()
	_, err := p.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	require.True(t, err == nil || apierrors.IsAlreadyExists(err), "%v", err)
	labels := map[string]string{"app": "istio-os-init"}
	container := corev1.Container{Name: "sleep", Image: "docker.m.daocloud.io/istio/proxyv2:1.16.1", Command: []string{"sleep", "100000d"}}
	_, err = p.Client.AppsV1().DaemonSets(namespace).Create(t.Context(), &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "istio-os-init", Labels: labels},
		Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{container}}},
		},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
}
