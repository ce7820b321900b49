// Package admission is what an OpenShift API server does with a pod before it stores it, as far as the pod's service account and
// SecurityContextConstraints are concerned: Kubernetes' own defaults, ServiceAccount admission and RBAC authorizer, and OpenShift's own
// SCC admission, all in this process. None of the code is imitated. What an API server reads from etcd is Go values, the platform's as
// Platform returns it. Serve puts the same SCC admission before a real API server.
package admission

import (
	"context"
	"fmt"
	"sync"

	securityv1 "github.com/openshift/api/security/v1"
	"github.com/openshift/apiserver-library-go/pkg/securitycontextconstraints/sccadmission"
	"github.com/openshift/apiserver-library-go/pkg/securitycontextconstraints/sccdefaults"
	securityinformers "github.com/openshift/client-go/security/informers/externalversions/security/v1"
	securitylisters "github.com/openshift/client-go/security/listers/security/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	kubeadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	rbaclisters "k8s.io/client-go/listers/rbac/v1"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install" // registers the defaults and conversions of pods
	"k8s.io/kubernetes/plugin/pkg/admission/serviceaccount"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac"
)

// Cluster is an OpenShift cluster's admission of pods. Make one with New.
type Cluster struct {
	store store
	chain kubeadmission.Interface
}

// nothing is an API server without objects. It is asked for service accounts that the cache lacks: there are none.
var nothing = sync.OnceValue(func() kubernetes.Interface { return fake.NewClientset() })

// New returns a cluster that has what Platform returns, and objects.
func New(objects ...runtime.Object) (*Cluster, error) {
	c := &Cluster{store: newStore()}
	if err := c.Put(append(Platform(), objects...)...); err != nil {
		return nil, err
	}
	accounts := serviceaccount.NewServiceAccount()
	accounts.SetExternalKubeClientSet(nothing())
	accounts.SetExternalKubeInformerFactory(c.store)
	if err := accounts.ValidateInitialization(); err != nil {
		return nil, err
	}
	sccs := informer[securitylisters.SecurityContextConstraintsLister]{c.store.constraints, securitylisters.NewSecurityContextConstraintsLister}
	constraints, err := sccPlugin(c.store, sccs, rbac.New(
		&rbac.RoleGetter{Lister: rbaclisters.NewRoleLister(c.store.roles)},
		&rbac.RoleBindingLister{Lister: rbaclisters.NewRoleBindingLister(c.store.roleBindings)},
		&rbac.ClusterRoleGetter{Lister: rbaclisters.NewClusterRoleLister(c.store.clusterRoles)},
		&rbac.ClusterRoleBindingLister{Lister: rbaclisters.NewClusterRoleBindingLister(c.store.clusterRoleBindings)},
	))
	if err != nil {
		return nil, err
	}
	// In this order as in OpenShift: what ServiceAccount admission mounts, the SCC has to allow.
	c.chain = kubeadmission.NewChainHandler(accounts, constraints)
	return c, nil
}

// sccPlugin returns OpenShift's SCC admission, which reads namespaces and SCCs from these informers, and asks rights who may use an SCC.
func sccPlugin(namespaces informers.SharedInformerFactory, sccs securityinformers.SecurityContextConstraintsInformer, rights authorizer.Authorizer) (kubeadmission.Interface, error) {
	plugin := sccadmission.NewConstraint()
	plugin.SetExternalKubeInformerFactory(namespaces)
	plugin.SetSecurityInformers(sccs)
	plugin.SetAuthorizer(rights)
	return plugin, plugin.ValidateInitialization()
}

// Put creates or replaces objects of the kinds that admission reads: Namespace, ServiceAccount, SecurityContextConstraints, Role,
// RoleBinding, ClusterRole, ClusterRoleBinding. Of another kind is an error.
func (c *Cluster) Put(objects ...runtime.Object) error {
	for _, object := range objects {
		object = object.DeepCopyObject()
		if scc, ok := object.(*securityv1.SecurityContextConstraints); ok {
			// OpenShift's API stores none without.
			sccdefaults.SetDefaults_SCC(scc)
		}
		if err := c.store.put(object); err != nil {
			return err
		}
	}
	return nil
}

// Submitted returns pod as an API server reads it, with Kubernetes' defaults: what admission starts from.
func Submitted(pod *corev1.Pod) (*corev1.Pod, error) {
	internal, err := decode(pod)
	if err != nil {
		return nil, err
	}
	return encode(internal)
}

// Create returns the pod that is stored if by creates pod, or the error by which it is refused.
func (c *Cluster) Create(ctx context.Context, by user.Info, pod *corev1.Pod) (*corev1.Pod, error) {
	return c.write(ctx, by, nil, pod)
}

// Update returns the pod that is stored if by replaces old by pod, or the error by which that is refused.
func (c *Cluster) Update(ctx context.Context, by user.Info, old, pod *corev1.Pod) (*corev1.Pod, error) {
	before, err := decode(old)
	if err != nil {
		return nil, err
	}
	return c.write(ctx, by, before, pod)
}

// write creates pod if before is nil.
func (c *Cluster) write(ctx context.Context, by user.Info, before *core.Pod, pod *corev1.Pod) (*corev1.Pod, error) {
	internal, err := decode(pod)
	if err != nil {
		return nil, err
	}
	if err := c.admit(ctx, attributes(internal, before, by)); err != nil {
		return nil, err
	}
	return encode(internal)
}

// admit does both rounds: in the second nothing may be changed any more.
func (c *Cluster) admit(ctx context.Context, attributes kubeadmission.Attributes) error {
	interfaces := kubeadmission.NewObjectInterfacesFromScheme(legacyscheme.Scheme)
	if err := c.chain.(kubeadmission.MutationInterface).Admit(ctx, attributes, interfaces); err != nil {
		return err
	}
	return c.chain.(kubeadmission.ValidationInterface).Validate(ctx, attributes, interfaces)
}

func attributes(pod, old *core.Pod, by user.Info) kubeadmission.Attributes {
	kind, resource := corev1.SchemeGroupVersion.WithKind("Pod"), corev1.SchemeGroupVersion.WithResource("pods")
	if old == nil {
		return kubeadmission.NewAttributesRecord(pod, nil, kind, pod.Namespace, pod.Name, resource, "", kubeadmission.Create, &metav1.CreateOptions{}, false, by)
	}
	return kubeadmission.NewAttributesRecord(pod, old, kind, pod.Namespace, pod.Name, resource, "", kubeadmission.Update, &metav1.UpdateOptions{}, false, by)
}

func decode(pod *corev1.Pod) (*core.Pod, error) {
	pod = pod.DeepCopy()
	legacyscheme.Scheme.Default(pod)
	internal := &core.Pod{}
	return internal, legacyscheme.Scheme.Convert(pod, internal, nil)
}

func encode(internal *core.Pod) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	return pod, legacyscheme.Scheme.Convert(internal, pod, nil)
}

// Allow returns the RoleBinding by which `oc adm policy add-scc-to-user NAME -z ACCOUNT` lets a service account use an SCC of the platform.
func Allow(scc, namespace, account string) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("%s-%s", rolePrefix+scc, account)},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: rolePrefix + scc},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}
}
