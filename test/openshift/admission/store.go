package admission

import (
	"fmt"

	securityv1 "github.com/openshift/api/security/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/core"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// store is what admission has cached of the API server's objects. It stands for informers that have synchronised: nothing runs beside
// the tests, and nothing has to be waited for. What it does not override of the embedded interface nobody calls; it would panic.
type store struct {
	informers.SharedInformerFactory
	namespaces, serviceAccounts, constraints, roles, roleBindings, clusterRoles, clusterRoleBindings cache.Indexer
}

func newStore() store {
	indexer := func() cache.Indexer {
		return cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	}
	return store{
		namespaces: indexer(), serviceAccounts: indexer(), constraints: indexer(),
		roles: indexer(), roleBindings: indexer(), clusterRoles: indexer(), clusterRoleBindings: indexer(),
	}
}

func (s store) put(object runtime.Object) error {
	switch object.(type) {
	case *corev1.Namespace:
		return s.namespaces.Add(object)
	case *corev1.ServiceAccount:
		return s.serviceAccounts.Add(object)
	case *securityv1.SecurityContextConstraints:
		return s.constraints.Add(object)
	case *rbacv1.Role:
		return s.roles.Add(object)
	case *rbacv1.RoleBinding:
		return s.roleBindings.Add(object)
	case *rbacv1.ClusterRole:
		return s.clusterRoles.Add(object)
	case *rbacv1.ClusterRoleBinding:
		return s.clusterRoleBindings.Add(object)
	}
	return fmt.Errorf("admission reads no %T", object)
}

func (s store) Core() core.Interface       { return coreGroup{s} }
func (s store) Shutdown()                  {}
func (s store) Start(stop <-chan struct{}) {}

type coreGroup struct{ store store }

func (g coreGroup) V1() coreinformers.Interface { return coreV1{store: g.store} }

type coreV1 struct {
	coreinformers.Interface
	store store
}

func (v coreV1) Namespaces() coreinformers.NamespaceInformer {
	return informer[corelisters.NamespaceLister]{v.store.namespaces, corelisters.NewNamespaceLister}
}

func (v coreV1) ServiceAccounts() coreinformers.ServiceAccountInformer {
	return informer[corelisters.ServiceAccountLister]{v.store.serviceAccounts, corelisters.NewServiceAccountLister}
}

// informer is one of client-go's, of the kind that the lister is for.
type informer[Lister any] struct {
	indexer cache.Indexer
	lister  func(cache.Indexer) Lister
}

func (i informer[Lister]) Informer() cache.SharedIndexInformer { return synced{} }
func (i informer[Lister]) Lister() Lister                      { return i.lister(i.indexer) }

// synced is an informer that has seen everything.
type synced struct{ cache.SharedIndexInformer }

func (synced) HasSynced() bool { return true }
