package cost

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/istio-os-init/istio-os-init/test/internal/lab"
)

// sighting is what the API told of a pod, and when by our clock. The times in a pod are whole seconds, and more than one clock's.
type sighting struct {
	at   time.Time
	pod  corev1.Pod
	gone bool
}

// sightings are all of a deployment's pods since follow.
type sightings struct {
	*deployment
	mutex sync.Mutex
	all   []sighting
}

// follow watches the deployment's pods until its test ends.
func (d *deployment) follow() *sightings {
	d.t.Helper()
	pods := lab.Client(d.t).CoreV1().Pods(d.Namespace)
	list, err := pods.List(d.t.Context(), metav1.ListOptions{LabelSelector: d.selector})
	require.NoError(d.t, err)
	told := watchPods(d.t, pods, d.selector, list.ResourceVersion)
	d.t.Cleanup(told.Stop)
	s := &sightings{deployment: d}
	go func() {
		for event := range told.ResultChan() {
			if pod, is := event.Object.(*corev1.Pod); is {
				s.mutex.Lock()
				s.all = append(s.all, sighting{at: time.Now(), pod: *pod, gone: event.Type == watch.Deleted})
				s.mutex.Unlock()
			}
		}
	}()
	return s
}

// watchPods tells of pods until it is stopped, also if the API server ends a watch: it does so after half an hour at the earliest, and if
// it has too much to do.
func watchPods(t *testing.T, pods typedcorev1.PodInterface, selector, from string) watch.Interface {
	t.Helper()
	told, err := watchtools.NewRetryWatcherWithContext(t.Context(), from, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = selector
			return pods.Watch(ctx, options)
		},
	})
	require.NoError(t, err)
	return told
}

// since returns those since a moment.
func (s *sightings) since(start time.Time) []sighting {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	for i, seen := range s.all {
		if !seen.at.Before(start) {
			return append([]sighting(nil), s.all[i:]...)
		}
	}
	return nil
}

// first waits for the first since a moment that fits.
func (s *sightings) first(start time.Time, otherwise string, fits func(sighting) bool) sighting {
	s.t.Helper()
	var found sighting
	s.until(lab.Patience, otherwise, func() bool {
		for _, seen := range s.since(start) {
			if fits(seen) {
				found = seen
				return true
			}
		}
		return false
	})
	return found
}

// created waits for a new pod.
func (s *sightings) created(start time.Time) sighting {
	s.t.Helper()
	return s.first(start, "no pod comes", func(seen sighting) bool { return !seen.gone && seen.pod.DeletionTimestamp == nil })
}

// ready waits until a pod is Ready.
func (s *sightings) ready(start time.Time, pod types.UID) sighting {
	s.t.Helper()
	return s.first(start, "the pod does not become Ready", func(seen sighting) bool { return seen.pod.UID == pod && lab.Ready(seen.pod) })
}

// gone waits until a pod is no more.
func (s *sightings) gone(start time.Time, pod types.UID) sighting {
	s.t.Helper()
	return s.first(start, "the pod does not go", func(seen sighting) bool { return seen.pod.UID == pod && seen.gone })
}

// remove deletes a pod, unless it has gone by itself. grace: nil for its own.
func (d *deployment) remove(pod corev1.Pod, grace *int64) {
	d.t.Helper()
	uid := pod.UID
	err := lab.Client(d.t).CoreV1().Pods(d.Namespace).Delete(d.t.Context(), pod.Name,
		metav1.DeleteOptions{GracePeriodSeconds: grace, Preconditions: &metav1.Preconditions{UID: &uid}})
	if !apierrors.IsNotFound(err) {
		require.NoError(d.t, err)
	}
}

// renewed deletes the only pod, and waits until there is another that is Ready.
func (d *deployment) renewed() {
	d.t.Helper()
	pods := d.pods()
	require.Len(d.t, pods, 1)
	d.remove(pods[0], nil)
	d.proven(1)
}

// proven waits until there are so many pods, each Ready and here to stay.
func (d *deployment) proven(pods int) []corev1.Pod {
	d.t.Helper()
	var there []corev1.Pod
	d.until(lab.Patience, "not every pod is Ready", func() bool {
		there = d.pods()
		for _, pod := range there {
			if pod.DeletionTimestamp != nil || !lab.Ready(pod) {
				return false
			}
		}
		return len(there) == pods
	})
	return there
}
