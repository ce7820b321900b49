package admission

import (
	"slices"

	"github.com/openshift/api/security"
	securityv1 "github.com/openshift/api/security/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
)

// rolePrefix begins the names of the ClusterRoles that let their subjects use one of the platform's SCCs.
const rolePrefix = "system:openshift:scc:"

// Platform returns what every OpenShift cluster has: the default SCCs, a ClusterRole for each, and the bindings of these and of
// cluster-admin. Source: openshift/cluster-kube-apiserver-operator, bindata/bootkube/scc-manifests, at c813e820 (August 2026).
func Platform() []runtime.Object {
	objects := []runtime.Object{
		&rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "cluster-admin"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}},
		},
		bind("cluster-admin", user.SystemPrivilegedGroup),
		bind(rolePrefix+"restricted-v2", user.AllAuthenticated),
		bind(rolePrefix+"restricted-v3", user.AllAuthenticated),
	}
	for _, scc := range defaults() {
		objects = append(objects, &scc, &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: rolePrefix + scc.Name},
			Rules: []rbacv1.PolicyRule{{
				APIGroups: []string{security.GroupName}, Resources: []string{"securitycontextconstraints"},
				ResourceNames: []string{scc.Name}, Verbs: []string{"use"},
			}},
		})
	}
	return objects
}

// bind gives the ClusterRole to the group.
func bind(role, group string) *rbacv1.ClusterRoleBinding {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: group}},
	}
}

// Namespace returns a namespace that OpenShift has given its ranges of uids and groups, and its SELinux level.
func Namespace(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
		securityv1.UIDRangeAnnotation:           "1000680000/10000",
		securityv1.SupplementalGroupsAnnotation: "1000680000/10000",
		securityv1.MCSAnnotation:                "s0:c26,c15",
	}}}
}

// Controller returns the user as which a controller of Kubernetes creates pods, e.g. daemon-set-controller.
func Controller(name string) user.Info {
	info := serviceaccount.UserInfo(metav1.NamespaceSystem, name, "")
	return &user.DefaultInfo{Name: info.GetName(), Groups: append(info.GetGroups(), user.AllAuthenticated)}
}

// Member returns a user who has no right beyond those of every authenticated user.
func Member() user.Info {
	return &user.DefaultInfo{Name: "member", Groups: []string{user.AllAuthenticated}}
}

// Administrator returns an administrator of the cluster, such as a pipeline that may do everything.
func Administrator() user.Info {
	return &user.DefaultInfo{Name: "administrator", Groups: []string{user.SystemPrivilegedGroup, user.AllAuthenticated}}
}

// defaults are the default SCCs. Each is what restricted has, and what makes it differ.
func defaults() []securityv1.SecurityContextConstraints {
	restricted := func(scc *securityv1.SecurityContextConstraints) {
		scc.AllowPrivilegeEscalation = new(true)
		scc.RequiredDropCapabilities = []corev1.Capability{"KILL", "MKNOD", "SETUID", "SETGID"}
		scc.RunAsUser.Type = securityv1.RunAsUserStrategyMustRunAsRange
		scc.SELinuxContext.Type = securityv1.SELinuxStrategyMustRunAs
		scc.FSGroup.Type = securityv1.FSGroupStrategyMustRunAs
		scc.SupplementalGroups.Type = securityv1.SupplementalGroupsStrategyRunAsAny
		scc.Volumes = []securityv1.FSType{
			securityv1.FSTypeConfigMap, securityv1.FSTypeCSI, securityv1.FSTypeDownwardAPI, securityv1.FSTypeEmptyDir, securityv1.FSTypeEphemeral,
			securityv1.FSTypeImage, securityv1.FSTypePersistentVolumeClaim, securityv1.FSProjected, securityv1.FSTypeSecret,
		}
	}
	// The second generation: as the Pod Security Standard "restricted" wants it.
	v2 := func(scc *securityv1.SecurityContextConstraints) {
		scc.AllowPrivilegeEscalation = new(false)
		scc.AllowedCapabilities = []corev1.Capability{"NET_BIND_SERVICE"}
		scc.RequiredDropCapabilities = []corev1.Capability{"ALL"}
		scc.SeccompProfiles = []string{corev1.SeccompProfileRuntimeDefault}
	}
	userNamespace := func(from int64) func(*securityv1.SecurityContextConstraints) {
		return func(scc *securityv1.SecurityContextConstraints) {
			const to = int64(65534)
			ranges := []securityv1.IDRange{{Min: from, Max: to}}
			scc.UserNamespaceLevel = securityv1.NamespaceLevelRequirePod
			scc.RunAsUser.UIDRangeMin, scc.RunAsUser.UIDRangeMax = new(from), new(to)
			scc.FSGroup.Ranges = ranges
			scc.SupplementalGroups.Type, scc.SupplementalGroups.Ranges = securityv1.SupplementalGroupsStrategyMustRunAs, ranges
		}
	}
	nonRoot := func(scc *securityv1.SecurityContextConstraints) {
		scc.RunAsUser.Type = securityv1.RunAsUserStrategyMustRunAsNonRoot
		scc.FSGroup.Type = securityv1.FSGroupStrategyRunAsAny
	}
	anyUID := func(scc *securityv1.SecurityContextConstraints) {
		scc.RequiredDropCapabilities = []corev1.Capability{"MKNOD"}
		scc.RunAsUser.Type = securityv1.RunAsUserStrategyRunAsAny
		scc.FSGroup.Type = securityv1.FSGroupStrategyRunAsAny
	}
	hostMount := func(scc *securityv1.SecurityContextConstraints) {
		scc.AllowHostDirVolumePlugin = true
		scc.Volumes = append(scc.Volumes, securityv1.FSTypeHostPath)
	}
	nfs := func(scc *securityv1.SecurityContextConstraints) {
		scc.Volumes = append(scc.Volumes, securityv1.FSTypeNFS)
	}
	hostNetwork := func(scc *securityv1.SecurityContextConstraints) {
		scc.AllowHostNetwork, scc.AllowHostPorts = true, true
		scc.SupplementalGroups.Type = securityv1.SupplementalGroupsStrategyMustRunAs
	}
	anyLabel := func(scc *securityv1.SecurityContextConstraints) {
		scc.SELinuxContext.Type = securityv1.SELinuxStrategyRunAsAny
	}

	scc := func(name string, differences ...func(*securityv1.SecurityContextConstraints)) securityv1.SecurityContextConstraints {
		scc := securityv1.SecurityContextConstraints{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, differs := range slices.Concat([]func(*securityv1.SecurityContextConstraints){restricted}, differences) {
			differs(&scc)
		}
		return scc
	}
	return []securityv1.SecurityContextConstraints{
		scc("restricted"),
		scc("restricted-v2", v2),
		scc("restricted-v3", v2, userNamespace(1000)),
		scc("nonroot", nonRoot),
		scc("nonroot-v2", nonRoot, v2),
		scc("anyuid", anyUID, func(scc *securityv1.SecurityContextConstraints) {
			scc.Priority = new(int32(10))
			scc.Groups = []string{"system:cluster-admins"}
		}),
		scc("hostnetwork", hostNetwork),
		scc("hostnetwork-v2", hostNetwork, v2),
		scc("hostaccess", hostMount, func(scc *securityv1.SecurityContextConstraints) {
			scc.AllowHostNetwork, scc.AllowHostPorts, scc.AllowHostPID, scc.AllowHostIPC = true, true, true, true
		}),
		scc("hostmount-anyuid", anyUID, hostMount, nfs, func(scc *securityv1.SecurityContextConstraints) {
			scc.Users = []string{"system:serviceaccount:openshift-infra:pv-recycler-controller"}
		}),
		scc("hostmount-anyuid-v2", anyUID, hostMount, nfs, anyLabel),
		scc("nested-container", userNamespace(0), func(scc *securityv1.SecurityContextConstraints) {
			scc.AllowedCapabilities = []corev1.Capability{"SETUID", "SETGID"}
			scc.RequiredDropCapabilities = nil
			scc.SELinuxContext.SELinuxOptions = &corev1.SELinuxOptions{Type: "container_engine_t"}
			scc.SeccompProfiles = []string{"*"}
		}),
		scc("privileged", anyUID, anyLabel, func(scc *securityv1.SecurityContextConstraints) {
			scc.AllowPrivilegedContainer, scc.AllowHostDirVolumePlugin = true, true
			scc.AllowHostNetwork, scc.AllowHostPorts, scc.AllowHostPID, scc.AllowHostIPC = true, true, true, true
			scc.AllowedCapabilities = []corev1.Capability{securityv1.AllowAllCapabilities}
			scc.RequiredDropCapabilities = nil
			scc.AllowedUnsafeSysctls = []string{"*"}
			scc.SeccompProfiles = []string{"*"}
			scc.Volumes = []securityv1.FSType{securityv1.FSTypeAll}
			scc.Groups = []string{"system:cluster-admins", user.NodesGroup, user.SystemPrivilegedGroup}
			scc.Users = []string{"system:admin", "system:serviceaccount:openshift-infra:build-controller"}
		}),
	}
}
