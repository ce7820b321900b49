package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	securityv1 "github.com/openshift/api/security/v1"
	"github.com/openshift/apiserver-library-go/pkg/securitycontextconstraints/sccdefaults"
	securityclient "github.com/openshift/client-go/security/clientset/versioned"
	securityinformers "github.com/openshift/client-go/security/informers/externalversions"
	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	kubeadmission "k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/core"
	sigsjson "sigs.k8s.io/json"
)

// Serve makes an API server admit pods as OpenShift's does: from its return until ctx ends each pod that is created or changed is judged
// over HTTPS on loopback, in both rounds, and refused if there is no answer. The plugin is the one that Cluster has. What it reads are the API
// server's objects, and who may use an SCC is the API server's RBAC to say. ServiceAccount admission is the API server's own, which is done
// before, as in OpenShift. config is an administrator's. The API server must serve the API of SecurityContextConstraints; Serve creates what
// Platform returns.
func Serve(ctx context.Context, config *rest.Config) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	constraints, err := securityclient.NewForConfig(config)
	if err != nil {
		return err
	}
	for _, object := range Platform() {
		if err := create(ctx, client, constraints, object); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}

	objects := informers.NewSharedInformerFactory(client, 0)
	security := securityinformers.NewSharedInformerFactory(constraints, 0)
	plugin, err := sccPlugin(objects, security.Security().V1().SecurityContextConstraints(), reviewer(client.AuthorizationV1().SubjectAccessReviews()))
	if err != nil {
		return err
	}
	objects.Start(ctx.Done())
	security.Start(ctx.Done())
	objects.WaitForCacheSync(ctx.Done())
	security.WaitForCacheSync(ctx.Done())

	listener, authority, err := listen()
	if err != nil {
		return err
	}
	mutate := &round{decide: plugin.(kubeadmission.MutationInterface).Admit}
	validate := &round{decide: plugin.(kubeadmission.ValidationInterface).Validate}
	mux := http.NewServeMux()
	mux.Handle("/mutate", mutate)
	mux.Handle("/validate", validate)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	go func() { _ = server.Serve(listener) }()
	if err := register(ctx, client, "https://"+listener.Addr().String(), authority); err != nil {
		return err
	}
	return waitUntilAsked(ctx, client, mutate, validate)
}

// create creates an object of the platform.
func create(ctx context.Context, client kubernetes.Interface, constraints securityclient.Interface, object any) (err error) {
	switch object := object.(type) {
	case *securityv1.SecurityContextConstraints:
		sccdefaults.SetDefaults_SCC(object)
		_, err = constraints.SecurityV1().SecurityContextConstraints().Create(ctx, object, metav1.CreateOptions{})
	case *rbacv1.ClusterRole:
		_, err = client.RbacV1().ClusterRoles().Create(ctx, object, metav1.CreateOptions{})
	case *rbacv1.ClusterRoleBinding:
		_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, object, metav1.CreateOptions{})
	default:
		err = fmt.Errorf("the platform has no %T", object)
	}
	return err
}

// reviewer returns an authorizer that asks the API server.
func reviewer(reviews authorizationclient.SubjectAccessReviewInterface) authorizer.AuthorizerFunc {
	return func(ctx context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		by := a.GetUser()
		spec := authorizationv1.SubjectAccessReviewSpec{
			User: by.GetName(), UID: by.GetUID(), Groups: by.GetGroups(), Extra: map[string]authorizationv1.ExtraValue{},
			ResourceAttributes: &authorizationv1.ResourceAttributes{
				Namespace: a.GetNamespace(), Verb: a.GetVerb(), Group: a.GetAPIGroup(), Version: a.GetAPIVersion(), Resource: a.GetResource(), Name: a.GetName(),
			},
		}
		for key, values := range by.GetExtra() {
			spec.Extra[key] = values
		}
		review, err := reviews.Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
		if err != nil || !review.Status.Allowed {
			return authorizer.DecisionNoOpinion, "", err
		}
		return authorizer.DecisionAllow, review.Status.Reason, nil
	}
}

// listen listens on loopback with a certificate of its own, and returns what vouches for it.
func listen() (listener net.Listener, authority []byte, err error) {
	const host = "127.0.0.1"
	certificate, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{net.ParseIP(host)}, nil)
	if err != nil {
		return nil, nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, nil, err
	}
	listener, err = tls.Listen("tcp", net.JoinHostPort(host, "0"), &tls.Config{Certificates: []tls.Certificate{pair}})
	return listener, certificate, err
}

// register tells the API server what to ask about, and where.
func register(ctx context.Context, client kubernetes.Interface, url string, authority []byte) error {
	const name = "admission.openshift.test" // of both webhooks
	at := func(path string) registrationv1.WebhookClientConfig {
		return registrationv1.WebhookClientConfig{URL: new(url + path), CABundle: authority}
	}
	written := func(group, resource string) registrationv1.RuleWithOperations {
		return registrationv1.RuleWithOperations{
			Operations: []registrationv1.OperationType{registrationv1.Create, registrationv1.Update},
			Rule:       registrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{"v1"}, Resources: []string{resource}},
		}
	}
	pods, sccs := written(corev1.GroupName, "pods"), written(securityv1.GroupName, "securitycontextconstraints")
	_, err := client.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &registrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []registrationv1.MutatingWebhook{{
			Name: name, ClientConfig: at("/mutate"), Rules: []registrationv1.RuleWithOperations{pods, sccs},
			FailurePolicy: new(registrationv1.Fail), SideEffects: new(registrationv1.SideEffectClassNone), TimeoutSeconds: new(int32(30)), AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &registrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Webhooks: []registrationv1.ValidatingWebhook{{
			Name: name, ClientConfig: at("/validate"), Rules: []registrationv1.RuleWithOperations{pods},
			FailurePolicy: new(registrationv1.Fail), SideEffects: new(registrationv1.SideEffectClassNone), TimeoutSeconds: new(int32(30)), AdmissionReviewVersions: []string{"v1"},
		}},
	}, metav1.CreateOptions{})
	return err
}

// waitUntilAsked waits until the API server asks in both rounds: it takes note of webhooks by and by.
func waitUntilAsked(ctx context.Context, client kubernetes.Interface, rounds ...*round) error {
	// OpenShift gives every namespace its ranges.
	ranges, err := json.Marshal(Namespace(metav1.NamespaceDefault))
	if err != nil {
		return err
	}
	if _, err := client.CoreV1().Namespaces().Patch(ctx, metav1.NamespaceDefault, types.MergePatchType, ranges, metav1.PatchOptions{}); err != nil {
		return err
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "asked-", Annotations: map[string]string{securityv1.RequiredSCCAnnotation: "privileged"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "none", Image: "none"}}},
	}
	unasked := func(r *round) bool { return !r.asked.Load() }
	for deadline := time.Now().Add(time.Minute); slices.ContainsFunc(rounds, unasked); time.Sleep(100 * time.Millisecond) {
		_, err := client.CoreV1().Pods(metav1.NamespaceDefault).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if time.Now().After(deadline) {
			return fmt.Errorf("the API server does not ask: %w", err)
		}
	}
	return nil
}

// round is one of admission's two, as an API server asks for it.
type round struct {
	decide func(context.Context, kubeadmission.Attributes, kubeadmission.ObjectInterfaces) error
	asked  atomic.Bool
}

// ServeHTTP answers an AdmissionReview.
func (r *round) ServeHTTP(out http.ResponseWriter, in *http.Request) {
	r.asked.Store(true)
	review := &admissionv1.AdmissionReview{}
	if err := json.NewDecoder(in.Body).Decode(review); err != nil || review.Request == nil {
		http.Error(out, fmt.Sprintf("not an AdmissionReview: %v", err), http.StatusBadRequest)
		return
	}
	response := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	before, after, err := r.judge(in.Context(), review.Request)
	if err == nil {
		response.Patch, err = patch(before, after)
	}
	if response.Patch != nil {
		response.PatchType = new(admissionv1.PatchTypeJSONPatch)
	}
	if err != nil {
		response.Allowed, response.Result = false, &metav1.Status{Message: err.Error()}
		if status := apierrors.APIStatus(nil); errors.As(err, &status) {
			response.Result = new(status.Status())
		}
	}
	out.Header().Set("Content-Type", "application/json")
	review.Request, review.Response = nil, response
	_ = json.NewEncoder(out).Encode(review)
}

// judge returns the object as it was asked for and as it is to be stored, or the error by which it is refused.
func (r *round) judge(ctx context.Context, request *admissionv1.AdmissionRequest) (before, after any, err error) {
	if request.Resource.Group == securityv1.GroupName {
		scc := &securityv1.SecurityContextConstraints{}
		if err := json.Unmarshal(request.Object.Raw, scc); err != nil {
			return nil, nil, err
		}
		defaulted := scc.DeepCopy()
		sccdefaults.SetDefaults_SCC(defaulted)
		return scc, defaulted, nil
	}
	pod, err := read(request.Object.Raw)
	if err != nil {
		return nil, nil, err
	}
	pod.Namespace = request.Namespace
	var old *core.Pod
	if request.Operation == admissionv1.Update {
		if old, err = read(request.OldObject.Raw); err != nil {
			return nil, nil, err
		}
	}
	if before, err = encode(pod.DeepCopy()); err != nil {
		return nil, nil, err
	}
	by := &user.DefaultInfo{Name: request.UserInfo.Username, UID: request.UserInfo.UID, Groups: request.UserInfo.Groups, Extra: map[string][]string{}}
	for key, values := range request.UserInfo.Extra {
		by.Extra[key] = values
	}
	if err := r.decide(ctx, attributes(pod, old, by), kubeadmission.NewObjectInterfacesFromScheme(legacyscheme.Scheme)); err != nil {
		return nil, nil, err
	}
	after, err = encode(pod)
	return before, after, err
}

// read reads a pod. A field that this version of Kubernetes does not know is an error: admission would drop it.
func read(raw []byte) (*core.Pod, error) {
	pod := &corev1.Pod{}
	unknown, err := sigsjson.UnmarshalStrict(raw, pod)
	if err = errors.Join(append(unknown, err)...); err != nil {
		return nil, err
	}
	return decode(pod)
}

// patch returns the JSON patch from one object to the other, field by field of the outermost; nil if they are the same.
func patch(before, after any) ([]byte, error) {
	var objects [2]map[string]json.RawMessage
	for i, object := range []any{before, after} {
		raw, err := json.Marshal(object)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(raw, &objects[i]); err != nil {
			return nil, err
		}
	}
	type operation struct {
		Op    string          `json:"op"`
		Path  string          `json:"path"`
		Value json.RawMessage `json:"value"`
	}
	var operations []operation
	for field, value := range objects[1] {
		if !bytes.Equal(objects[0][field], value) {
			operations = append(operations, operation{"add", "/" + field, value})
		}
	}
	if operations == nil {
		return nil, nil
	}
	return json.Marshal(operations)
}
