package openshift

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	securityv1 "github.com/openshift/api/security/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
	"github.com/istio-os-init/istio-os-init/test/openshift/admission"
)

const (
	// subjectAnnotation says for whom an SCC was found: the pod's service account, or the user who created the pod.
	subjectAnnotation = "security.openshift.io/validated-scc-subject-type"
	// tokenPath is where ServiceAccount admission mounts the token.
	tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount"
)

func TestEveryPodIsAdmittedUnderItsReleasesSCCForItsServiceAccount(t *testing.T) {
	t.Parallel()
	forEveryPod(t, func(t *testing.T, r release, pod pod) {
		require.NotEmpty(t, pod.scc, "the chart creates no SCC")
		require.Equal(t, pod.scc, pod.Annotations[securityv1.RequiredSCCAnnotation])
		// An OpenShift that does not know the annotation looks for the most restrictive SCC that admits the pod.
		unasked := pod.DeepCopy()
		delete(unasked.Annotations, securityv1.RequiredSCCAnnotation)
		for _, submitted := range []*corev1.Pod{&pod.Pod, unasked} {
			stored, err := r.cluster.Create(t.Context(), pod.by, submitted)
			require.NoError(t, err)
			require.Equal(t, pod.scc, stored.Annotations[securityv1.ValidatedSCCAnnotation])
			require.Equal(t, "serviceaccount", stored.Annotations[subjectAnnotation])
		}
	})
}

// uid, groups, SELinux label, capabilities, volumes: all of it is what the chart has written.
func TestAdmissionAddsADefaultSeccompProfileAndAnAskedForTokenAndChangesNothing(t *testing.T) {
	t.Parallel()
	forEveryPod(t, func(t *testing.T, r release, pod pod) {
		want, err := admission.Submitted(&pod.Pod)
		require.NoError(t, err)
		got, err := r.cluster.Create(t.Context(), pod.by, &pod.Pod)
		require.NoError(t, err)

		token := *pod.Spec.AutomountServiceAccountToken
		require.Equal(t, token, takeToken(got), "only uninstall's Job gets a token that it does not mount itself")
		for name, value := range map[string]string{
			securityv1.ValidatedSCCAnnotation: pod.scc,
			subjectAnnotation:                 "serviceaccount",
			corev1.SeccompPodAnnotationKey:    corev1.SeccompProfileRuntimeDefault,
		} {
			require.NotContains(t, want.Annotations, name)
			want.Annotations[name] = value
		}
		if len(want.Spec.ImagePullSecrets) == 0 {
			want.Spec.ImagePullSecrets = registry
		}
		require.Nil(t, want.Spec.SecurityContext.SeccompProfile)
		want.Spec.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
		require.Equal(t, want, got)
	})
}

// takeToken removes the volume that ServiceAccount admission has added, whose name is random, and returns whether there was one.
func takeToken(pod *corev1.Pod) (found bool) {
	var volumes []corev1.Volume
	for _, volume := range pod.Spec.Volumes {
		if strings.HasPrefix(volume.Name, "kube-api-access-") && volume.Projected != nil {
			found = true
			continue
		}
		volumes = append(volumes, volume)
	}
	if !found {
		return false
	}
	pod.Spec.Volumes = volumes
	for i := range pod.Spec.Containers {
		var mounts []corev1.VolumeMount
		for _, mount := range pod.Spec.Containers[i].VolumeMounts {
			if !strings.HasPrefix(mount.Name, "kube-api-access-") || mount.MountPath != tokenPath || !mount.ReadOnly {
				mounts = append(mounts, mount)
			}
		}
		pod.Spec.Containers[i].VolumeMounts = mounts
	}
	return true
}

// Admission judges every update again, and may not change the pod then: a pod that it would have to change can be neither labelled nor
// rid of a finalizer.
func TestAnAdmittedPodCanBeUpdated(t *testing.T) {
	t.Parallel()
	forEveryPod(t, func(t *testing.T, r release, pod pod) {
		stored, err := r.cluster.Create(t.Context(), pod.by, &pod.Pod)
		require.NoError(t, err)
		changed := stored.DeepCopy()
		changed.Labels["example.com/seen"] = "true"
		updated, err := r.cluster.Update(t.Context(), admission.Controller("daemon-set-controller"), stored, changed)
		require.NoError(t, err)
		require.Equal(t, changed, updated)
	})
}

// The control, one capability at a time: admission is what decides here, and it names what is missing and where.
func TestAPodIsRefusedWhoseSCCLacksOneOfItsCapabilities(t *testing.T) {
	t.Parallel()
	forEveryPod(t, func(t *testing.T, r release, pod pod) {
		for i, scc := range r.SCCs { // uninstall's pods have no capability
			for _, container := range append(pod.Spec.InitContainers, pod.Spec.Containers...) {
				for _, capability := range container.SecurityContext.Capabilities.Add {
					poorer := scc.DeepCopy()
					poorer.AllowedCapabilities = nil
					for _, allowed := range scc.AllowedCapabilities {
						if allowed != capability {
							poorer.AllowedCapabilities = append(poorer.AllowedCapabilities, allowed)
						}
					}
					require.NoError(t, r.cluster.Put(poorer))
					_, err := r.cluster.Create(t.Context(), pod.by, &pod.Pod)
					require.ErrorContains(t, err, `capabilities.add: Invalid value: "`+string(capability)+`": capability may not be added`)
					require.NoError(t, r.cluster.Put(&r.SCCs[i]))
				}
			}
		}
	})
}

func TestOfOpenShiftsOwnSCCsOnlyPrivilegedAdmitsTheReleasesPods(t *testing.T) {
	t.Parallel()
	objects := chart.Render(t, "openshift: {scc: {create: false}}", onOpenShift...)
	for _, object := range admission.Platform() {
		scc, ok := object.(*securityv1.SecurityContextConstraints)
		if !ok {
			continue
		}
		r := install(t, objects)
		pod := r.pods[0]
		require.NoError(t, r.cluster.Put(admission.Allow(scc.Name, pod.Namespace, pod.Spec.ServiceAccountName)))
		_, err := r.cluster.Create(t.Context(), pod.by, &pod.Pod)
		require.Equal(t, scc.Name == "privileged", err == nil, "%s: %v", scc.Name, err)
	}
}

// hostmount-anyuid, by its name the one for a pod that mounts the host's root as uid 0, allows no capability, no label but the namespace's and
// no seccomp profile; its v2 any label.
func TestWithoutTheChartsSCCsTheRefusalNamesWhatThePodNeeds(t *testing.T) {
	t.Parallel()
	const (
		capability = `capabilities.add: Invalid value: %q: capability may not be added`
		label      = `seLinuxOptions.type: Invalid value: "spc_t"`
		seccomp    = `seccomp may not be set`
	)
	load, verify := fmt.Sprintf(capability, "SYS_MODULE"), fmt.Sprintf(capability, "NET_ADMIN")
	for _, row := range []struct {
		granted  string
		refusals map[string][]string
	}{
		{"nothing", map[string][]string{"release": {load, verify, label}, "uninstall's cleaner": {label}, "uninstall's Job": {"runAsUser"}, "helm test": {verify}}},
		{"hostmount-anyuid", map[string][]string{
			"release": {load, verify, label, seccomp}, "uninstall's cleaner": {label, seccomp}, "uninstall's Job": {seccomp}, "helm test": {verify},
		}},
		{"hostmount-anyuid-v2", map[string][]string{
			"release": {load, verify, seccomp}, "uninstall's cleaner": {seccomp}, "uninstall's Job": {seccomp}, "helm test": {verify},
		}},
		{"privileged", nil},
	} {
		t.Run(row.granted, func(t *testing.T) {
			t.Parallel()
			forEveryPod(t, func(t *testing.T, r release, pod pod) {
				require.Empty(t, pod.scc)
				scc := "restricted-v2" // everybody's
				if row.granted != "nothing" {
					scc = row.granted
					require.NoError(t, r.cluster.Put(admission.Allow(scc, pod.Namespace, pod.Spec.ServiceAccountName)))
				}
				stored, err := r.cluster.Create(t.Context(), pod.by, &pod.Pod)
				if row.refusals == nil {
					require.NoError(t, err)
					require.Equal(t, scc, stored.Annotations[securityv1.ValidatedSCCAnnotation])
					want, err := admission.Submitted(&pod.Pod)
					require.NoError(t, err)
					require.Equal(t, want.Spec.SecurityContext, stored.Spec.SecurityContext)
					return
				}
				require.ErrorContains(t, err, "unable to validate against any security context constraint")
				require.NotContains(t, err.Error(), fmt.Sprintf("provider %q: Forbidden: not usable", scc))
				for _, refusal := range row.refusals[pod.what] {
					switch {
					case refusal == load && !loads(pod):
						require.NotContains(t, err.Error(), refusal)
					case refusal != verify || verifies(pod):
						require.ErrorContains(t, err, refusal)
					}
				}
			}, "--set", "openshift.scc.create=false")
		})
	}
}

// loads is whether the pod loads modules, and does not only look.
func loads(pod pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(volume corev1.Volume) bool { return volume.Name == "modules-load" })
}

// verifies is whether a container of the pod applies rules: names may decide instead.
func verifies(pod pod) bool {
	return slices.ContainsFunc(append(pod.Spec.InitContainers, pod.Spec.Containers...), func(c corev1.Container) bool { return c.Name == "verify" })
}

// So `helm test` by an administrator says nothing about the other pods: these have their controllers' rights and their service account's.
func TestThePodOfHelmTestHasTheRightsOfWhoRunsItToo(t *testing.T) {
	t.Parallel()
	r := installed(t, "openshift", "--set", "openshift.scc.create=false")
	for _, pod := range r.pods {
		if pod.what != "helm test" {
			continue
		}
		_, err := r.cluster.Create(t.Context(), admission.Member(), &pod.Pod)
		require.ErrorContains(t, err, "unable to validate against any security context constraint")
		stored, err := r.cluster.Create(t.Context(), admission.Administrator(), &pod.Pod)
		require.NoError(t, err)
		require.Equal(t, "privileged", stored.Annotations[securityv1.ValidatedSCCAnnotation])
		require.Equal(t, "user", stored.Annotations[subjectAnnotation])
	}
}

func TestNoOtherServiceAccountMayUseTheSCCs(t *testing.T) {
	t.Parallel()
	r := installed(t, "default")
	for _, name := range []string{chart.Namespace, "another"} {
		require.NoError(t, r.cluster.Put(admission.Namespace(name), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "stranger"}}))
		for _, pod := range r.pods {
			pod.Namespace, pod.Spec.ServiceAccountName = name, "stranger"
			_, err := r.cluster.Create(t.Context(), pod.by, &pod.Pod)
			require.ErrorContains(t, err, fmt.Sprintf("provider %q: Forbidden: not usable by user or serviceaccount", pod.scc), pod.what)
		}
	}
}

// A namespace is without for an instant, until a controller of OpenShift gives it its ranges.
func TestANamespaceWithoutRangesRefusesThePods(t *testing.T) {
	t.Parallel()
	r := installed(t, "openshift")
	bare := admission.Namespace(chart.Namespace)
	bare.Annotations = nil
	require.NoError(t, r.cluster.Put(bare))
	// admission itself would wait ten seconds for them
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, pod := range r.pods {
		_, err := r.cluster.Create(ctx, pod.by, &pod.Pod)
		require.ErrorContains(t, err, "unable to find annotation "+securityv1.UIDRangeAnnotation, pod.what)
	}
}
