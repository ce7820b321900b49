// Package policies asks one question: which of the policies that clusters commonly enforce do the chart's pods violate, and does the page say
// why? The Pod Security Standards are judged by Kubernetes' own evaluator, Kyverno's policies by that of CEL, which is Kyverno's too, and
// those of Gatekeeper's library by its engine.
package policies

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// The columns of docs/policies.md between the container and the reason.
const (
	standards = "Pod Security Standards"
	kyvernos  = "Kyverno"
	library   = "Gatekeeper"
)

// security are the engines with their policies about what a container may do. Gatekeeper's parameters are those of the standard restricted.
func security(t *testing.T) map[string]engine {
	t.Helper()
	return map[string]engine{
		standards: podSecurity(t),
		kyvernos:  kyverno(t, kyvernoChart(t), vendored(t, "require-ro-rootfs"), vendored(t, "require-drop-all")),
		library: gatekeeper(t, `
privileged-containers: {}
allow-privilege-escalation: {}
capabilities: {requiredDropCapabilities: [ALL], allowedCapabilities: [NET_BIND_SERVICE]}
host-filesystem: {}
host-namespaces: {}
host-network-ports: {hostNetwork: false}
read-only-root-filesystem: {}
seccompv2: {allowedProfiles: [RuntimeDefault, Localhost], allowedLocalhostFiles: ["*"]}
selinux: {allowedSELinuxOptions: [{type: container_t}, {type: container_init_t}, {type: container_kvm_t}, {type: container_engine_t}]}
users: {runAsUser: {rule: MustRunAsNonRoot}}
volumes: {volumes: [configMap, csi, downwardAPI, emptyDir, ephemeral, persistentVolumeClaim, projected, secret]}
`),
	}
}

// demands are the engines with their policies about what a container must have: limits, probes, labels and a tag.
func demands(t *testing.T) map[string]engine {
	t.Helper()
	return map[string]engine{
		kyvernos: kyverno(t, vendored(t, "require-pod-requests-limits"), vendored(t, "require-probes"), vendored(t, "require-labels"), vendored(t, "disallow-latest-tag")),
		library: gatekeeper(t, `
containerlimits: {cpu: "1", memory: 1Gi}
containerrequests: {cpu: 200m, memory: 1Gi}
requiredprobes: {probes: [readinessProbe, livenessProbe], probeTypes: [tcpSocket, httpGet, exec]}
requiredlabels: {labels: [{key: owner}, {key: app.kubernetes.io/name}]}
disallowedtags: {tags: [latest]}
`),
	}
}

// vendored is a policy of Kyverno's collection, which no module contains.
func vendored(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "kyverno", name+".yaml"))
	require.NoError(t, err)
	return string(text)
}

// violation is a policy of an engine that a container violates.
type violation struct{ container, engine, policy string }

// documented are the exceptions of docs/policies.md by what they are for. In a row "| container | policies | ... | reason |" there is a column
// for each engine, and - if there is none of its policies.
func documented(t *testing.T) map[violation]string {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(chart.Path(), "docs", "policies.md"))
	require.NoError(t, err)
	engines := []string{standards, kyvernos, library}
	require.Contains(t, string(page), "\n| container | "+strings.Join(engines, " | ")+" | reason |\n")
	exceptions := map[violation]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| (.+) \\| (.+) \\| (.+) \\| (.+) \\|$").FindAllStringSubmatch(string(page), -1) {
		for i, engine := range engines {
			for policy := range strings.SplitSeq(row[2+i], ", ") {
				exception := violation{row[1], engine, policy}
				require.NotContains(t, exceptions, exception, "twice")
				if policy != "-" {
					exceptions[exception] = row[5]
				}
			}
		}
	}
	require.NotEmpty(t, exceptions)
	return exceptions
}

// pods are all that a release makes in its life.
func pods(objects chart.Objects) (all []corev1.PodTemplateSpec) {
	for _, some := range []*chart.Objects{&objects, objects.Hooks} {
		if some == nil {
			continue
		}
		for _, daemonSet := range some.DaemonSets {
			all = append(all, daemonSet.Spec.Template)
		}
		for _, job := range some.Jobs {
			all = append(all, job.Spec.Template)
		}
	}
	for _, test := range objects.Tests {
		all = append(all, corev1.PodTemplateSpec{ObjectMeta: test.ObjectMeta, Spec: test.Spec})
	}
	return all
}

// alone are pods, each with one of a pod's containers and that container's volumes, by the container's name. Each container says for itself
// what the pod says for all.
func alone(pod corev1.PodTemplateSpec) map[string]*corev1.Pod {
	all := map[string]*corev1.Pod{}
	add := func(containers []corev1.Container, isInit bool) {
		for _, container := range containers {
			one := corev1.Pod{ObjectMeta: *pod.ObjectMeta.DeepCopy(), Spec: *pod.Spec.DeepCopy()}
			one.Name, one.Namespace = "pod", chart.Namespace // a policy's message has them, and without a message there is no violation
			one.Spec.SecurityContext = nil
			one.Spec.InitContainers, one.Spec.Containers = nil, []corev1.Container{container}
			if isInit {
				one.Spec.InitContainers, one.Spec.Containers = one.Spec.Containers, []corev1.Container{}
			}
			one.Spec.Volumes = slices.DeleteFunc(one.Spec.Volumes, func(volume corev1.Volume) bool {
				return !slices.ContainsFunc(container.VolumeMounts, func(mount corev1.VolumeMount) bool { return mount.Name == volume.Name })
			})
			all[container.Name] = &one
		}
	}
	add(pod.Spec.InitContainers, true)
	add(pod.Spec.Containers, false)
	return all
}

func TestThePodsViolateOnlyWhatThePageGivesAReasonFor(t *testing.T) {
	t.Parallel()
	exceptions, used := documented(t), map[violation]bool{}
	judge := func(engines map[string]engine, scenarios ...string) {
		files := make([]string, len(scenarios))
		for i, scenario := range scenarios {
			files[i] = chart.Scenario(scenario)
		}
		for _, pod := range pods(chart.RenderFiles(t, files)) {
			for container, one := range alone(pod) {
				for name, engine := range engines {
					for _, policy := range engine(t, one) {
						used[violation{container, name, policy}] = true
					}
				}
			}
		}
	}
	engines := security(t)
	for _, scenario := range chart.Scenarios(t) {
		judge(engines, scenario)
	}
	// The scenario policies is what to set where limits, probes and labels are demanded.
	judge(demands(t), "signals", "policies")
	var missing, unneeded []violation
	for found := range used {
		if exceptions[found] == "" {
			missing = append(missing, found)
		}
	}
	for exception := range exceptions {
		if !used[exception] {
			unneeded = append(unneeded, exception)
		}
	}
	require.Empty(t, missing, "docs/policies.md has no reason for these")
	require.Empty(t, unneeded, "nothing needs these exceptions of docs/policies.md")
}

// The control: what the engines find in a pod that does all that a policy forbids, and has nothing that one demands.
func TestAPodThatDoesAllThatIsForbiddenViolatesEveryPolicy(t *testing.T) {
	t.Parallel()
	const bad = `
metadata: {name: bad, namespace: default, annotations: {container.apparmor.security.beta.kubernetes.io/bad: unconfined}}
spec:
  hostNetwork: true
  hostPID: true
  hostIPC: true
  securityContext:
    sysctls: [{name: kernel.msgmax, value: "1"}]
    windowsOptions: {hostProcess: true}
  containers:
    - name: bad
      image: bad:latest
      ports: [{hostPort: 80, containerPort: 80}]
      volumeMounts: [{name: host, mountPath: /host}]
      lifecycle: {preStop: {httpGet: {host: 192.0.2.1, port: 80}}}
      securityContext:
        privileged: true
        allowPrivilegeEscalation: true
        procMount: Unmasked
        runAsUser: 0
        runAsGroup: 0
        capabilities: {add: [SYS_ADMIN]}
        seccompProfile: {type: Unconfined}
        appArmorProfile: {type: Unconfined}
        seLinuxOptions: {type: spc_t, user: root}
        windowsOptions: {hostProcess: true}
  volumes: [{name: host, hostPath: {path: /}}]
`
	var pod corev1.Pod
	require.NoError(t, yaml.UnmarshalStrict([]byte(bad), &pod))
	for name, wanted := range map[string][]string{
		standards: {
			"host namespaces", "hostPath volumes", "hostPort", "privileged", "procMount", "seLinuxOptions", "non-default capabilities", "forbidden sysctls", "hostProcess",
			"forbidden AppArmor profiles", "seccompProfile", "probe or lifecycle host", "allowPrivilegeEscalation != false", "unrestricted capabilities",
			"restricted volume types", "runAsNonRoot != true", "runAsUser=0",
		},
		kyvernos: {
			"disallow-capabilities", "disallow-capabilities-strict", "disallow-host-namespaces", "disallow-host-path", "disallow-host-ports", "disallow-host-process",
			"disallow-privilege-escalation", "disallow-privileged-containers", "disallow-proc-mount", "disallow-selinux", "drop-all-capabilities",
			"require-non-root-groups", "require-ro-rootfs", "require-run-as-non-root-user", "require-run-as-nonroot", "restrict-apparmor-profiles",
			"restrict-seccomp", "restrict-seccomp-strict", "restrict-sysctls", "restrict-volume-types",
			"disallow-latest-tag", "require-labels", "require-pod-probes", "require-requests-limits",
		},
		library: {
			"capabilities", "k8spspallowedusers", "k8spspallowprivilegeescalationcontainer", "k8spsphostfilesystem", "k8spsphostnamespace", "k8spsphostnetworkingports",
			"k8spspprivileged", "k8spspreadonlyrootfilesystem", "k8spspseccomp", "k8spspselinux", "k8spspvolumetypes",
			"k8scontainerlimits", "k8scontainerrequests", "k8sdisallowedtags", "k8srequiredlabels", "k8srequiredprobes",
		},
	} {
		found := map[string]bool{}
		for _, engines := range []map[string]engine{security(t), demands(t)} {
			if engine, there := engines[name]; there {
				for _, policy := range engine(t, &pod) {
					found[policy] = true
				}
			}
		}
		require.ElementsMatch(t, wanted, slices.Collect(maps.Keys(found)), name)
	}
	good := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "good", Namespace: "default", Labels: map[string]string{"owner": "x", "app.kubernetes.io/name": "x"}},
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(`
containers:
  - name: good
    image: good:1
    livenessProbe: {exec: {command: [x]}}
    readinessProbe: {exec: {command: [x]}}
    resources: {requests: {cpu: 1m, memory: 1Mi}, limits: {cpu: 1m, memory: 1Mi}}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      runAsUser: 1
      runAsGroup: 1
      capabilities: {drop: [ALL]}
      seccompProfile: {type: RuntimeDefault}
`), &good.Spec))
	for _, engines := range []map[string]engine{security(t), demands(t)} {
		for name, engine := range engines {
			require.Empty(t, engine(t, &good), name)
		}
	}
}

// On a cluster that only has to be looked at, load violates no more than that it looks.
func TestWhatLooksOnlyViolatesLess(t *testing.T) {
	t.Parallel()
	judge := podSecurity(t)
	reasons := func(scenario string) []string {
		return judge(t, alone(chart.RenderFiles(t, []string{chart.Scenario(scenario)}).DaemonSet(t).Spec.Template)["load"])
	}
	looks := reasons("look-only")
	require.Subset(t, reasons("default"), looks)
	require.ElementsMatch(t, []string{"hostPath volumes", "seLinuxOptions", "restricted volume types"}, looks)
}
