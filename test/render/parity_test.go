package render

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// ofTheirOwn are the pods of Istio's tests that ask for something else than the mesh, by annotations, a ProxyConfig or their namespace's
// uids: the arguments that differ, by file. "custom" has arguments that are none of Istio's.
var ofTheirOwn = map[string]string{
	"hello-openshift-custom-injection.yaml.injected":   "-u",
	"hello-openshift.yaml.injected":                    "-u",
	"kubevirtInterfaces.yaml.injected":                 "-d -k",
	"kubevirtInterfaces_list.yaml.injected":            "-k",
	"proxy-override-runas.yaml.cni.injected":           "-u",
	"proxy-override-runas.yaml.injected":               "-u",
	"proxy-override-runas.yaml.tproxy.injected":        "-u",
	"proxy-override.yaml.injected":                     "custom",
	"reroute-virtual-interfaces.yaml.injected":         "-d -k",
	"reroute-virtual-interfaces_list.yaml.injected":    "-k",
	"status_annotations.yaml.injected":                 "-d",
	"status_annotations_zeroport.yaml.injected":        "-d",
	"status_params.yaml.injected":                      "-d",
	"traffic-annotations-empty-includes.yaml.injected": "-i -x -b -d",
	"traffic-annotations-wildcards.yaml.injected":      "-x -d",
	"traffic-annotations.yaml.injected":                "-i -x -b -d -o",
	"traffic-params.yaml.injected":                     "-i -x -d",
}

// What Istio's own injector renders, in the module that the stand-in is built from.
func TestVerifyRunsAsIstioInitDoesInEveryPodThatIstiosInjectorRenders(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(chart.IstioModule(t), "pkg", "kube", "inject", "testdata", "inject", "*.injected"))
	require.NoError(t, err)
	adds := regexp.MustCompile(`istio-iptables "\$@" (--.+)`).FindStringSubmatch(source(t, "verify-traffic.sh"))
	require.NotEmpty(t, adds)
	seen := map[string]int{}
	for _, file := range files {
		for _, container := range containersOf(t, file) {
			mine := map[string]string{"istio-init": "verify", "istio-validation": "verify-traffic"}[container.Name]
			if mine == "" {
				continue
			}
			seen[container.Name]++
			differs := strings.Fields(ofTheirOwn[filepath.Base(file)])
			mode := "{dns: false}" // which a mesh sets by environment
			if slices.Contains(container.Args, "TPROXY") {
				mode = "{dns: false, tproxy: true}"
			}
			ours := chart.Render(t, "mesh: "+mode).Container(t, mine)
			want := append([]string{"istio-iptables"}, ours.Args...)
			if mine == "verify-traffic" {
				want = append(want, strings.Fields(adds[1])...)
				if slices.Contains(differs, "-u") {
					container.SecurityContext.RunAsUser, container.SecurityContext.RunAsGroup = ours.SecurityContext.RunAsUser, ours.SecurityContext.RunAsGroup
				}
			}
			require.Equal(t, container.SecurityContext, ours.SecurityContext, file)
			if len(differs) == 0 {
				require.Equal(t, container.Args, want, file)
				continue
			}
			require.NotEqual(t, container.Args, want, "%s: differs no longer", file)
			if differs[0] != "custom" {
				require.Equal(t, without(container.Args, differs), without(want, differs), file)
			}
		}
	}
	require.Greater(t, seen["istio-init"], 80)
	require.NotZero(t, seen["istio-validation"])
}

// containersOf returns the containers of every pod in a file of manifests, wherever in them.
func containersOf(t *testing.T, file string) []corev1.Container {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	var found []corev1.Container
	var walk func(any)
	walk = func(node any) {
		switch node := node.(type) {
		case []any:
			for _, item := range node {
				walk(item)
			}
		case map[string]any:
			for key, value := range node {
				if list, isList := value.([]any); isList && (key == "initContainers" || key == "containers") {
					text, err := yaml.Marshal(list)
					require.NoError(t, err)
					var containers []corev1.Container
					require.NoError(t, yaml.Unmarshal(text, &containers), file)
					found = append(found, containers...)
				} else {
					walk(value)
				}
			}
		}
	}
	for document := range strings.SplitSeq("\n"+string(content), "\n---") {
		var object any
		require.NoError(t, yaml.Unmarshal([]byte(document), &object), file)
		walk(object)
	}
	return found
}

// without returns a command's arguments without some of the flags, each of which has a value.
func without(arguments, flags []string) []string {
	var left []string
	for i := 0; i < len(arguments); i++ {
		if slices.Contains(flags, arguments[i]) {
			i++
			continue
		}
		left = append(left, arguments[i])
	}
	return left
}
