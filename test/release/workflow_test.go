package release

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"github.com/istio-os-init/istio-os-init/test/internal/chart"
)

// What is GitHub's, Sigstore's or Docker's is not run here: no stand-in could show that a release succeeds. See docs/verify.md.
var service = regexp.MustCompile(`(?m)^(gh|cosign|docker|printf .* \| docker) `)

// A workflow's keys that these tests read, https://docs.github.com/actions/reference/workflows-and-actions/workflow-syntax
type workflow struct {
	Permissions map[string]string
	Jobs        map[string]struct {
		Environment string
		Permissions map[string]string
		Uses        string
		Env         map[string]string
		Steps       []struct {
			Name, Uses, Run string
			Env, With       map[string]any
		}
	}
}

func workflows(t *testing.T) map[string]workflow {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chart.Root(), ".github", "workflows", "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	parsed := map[string]workflow{}
	for _, file := range files {
		var w workflow
		require.NoError(t, yaml.Unmarshal([]byte(read(t, file)), &w))
		parsed[filepath.Base(file)] = w
	}
	return parsed
}

func TestOnlyTheProtectedJobMayReadASecretOrWrite(t *testing.T) {
	t.Parallel()
	protected := 0
	for file, w := range workflows(t) {
		require.Equal(t, map[string]string{"contents": "read"}, w.Permissions, file)
		for name, job := range w.Jobs {
			content, err := yaml.Marshal(job)
			require.NoError(t, err)
			if job.Environment == "release" {
				protected++
				require.Contains(t, string(content), "secrets.CHART_SIGNING_KEY")
				continue
			}
			require.NotContains(t, string(content), "secrets", "%s: %s", file, name)
			for scope, access := range job.Permissions {
				require.Equal(t, "read", access, "%s: %s: %s", file, name, scope)
			}
		}
	}
	require.Equal(t, 1, protected, "jobs in the environment release")
}

func TestEveryActionIsPinnedByItsCommit(t *testing.T) {
	t.Parallel()
	for file, w := range workflows(t) {
		for name, job := range w.Jobs {
			uses := []string{job.Uses}
			for _, step := range job.Steps {
				uses = append(uses, step.Uses)
			}
			for _, action := range uses {
				if action != "" && !strings.HasPrefix(action, "./") {
					require.Regexp(t, `^[a-z-]+/[a-z-]+@[0-9a-f]{40}$`, action, "%s: %s", file, name)
				}
			}
		}
	}
}

func TestOnlyACommitOfMainIsReleased(t *testing.T) {
	t.Parallel()
	origin := newRepository(t)
	origin.trust(t, newKey(t, ""))
	origin.write(t, "README.md", "main has moved on")
	origin.commit(t)
	tag := "v" + version(t)
	for _, row := range []struct{ name, prepare, reason string }{
		{"the tag is on main", "git tag $TAG && git checkout --quiet $TAG", ""},
		{"main has moved on", "git tag $TAG main~ && git checkout --quiet $TAG", ""},
		{"the tag is on a branch", "git checkout --quiet -b side && $COMMIT && git tag $TAG", "which is not on main. Delete the tag"},
		{"the tag is on a branch from before main's last commit", "git checkout --quiet -b side main~ && $COMMIT && git tag $TAG", "which is not on main. Delete the tag"},
		{"the tag is on another commit", "git tag $TAG main~", "the tag " + tag + " is on "},
		{"there is no tag", "true", "there is no tag " + tag},
		{"main is unknown", "git tag $TAG && git update-ref -d refs/remotes/origin/main", "origin/main is unknown"},
		{"there is no key", "git rm --quiet ci/signing-key.asc", "ci/signing-key.asc is missing"},
		{"the tag is not the version's", "git tag v9.9.9; TAG=v9.9.9", "the tag is v9.9.9 and the chart's version "},
	} {
		t.Run(row.name, func(t *testing.T) {
			clone := origin.clone(t)
			output, err := clone.run(t, []string{"TAG=" + tag, "COMMIT=git -c user.name=test -c user.email=test@example.com commit --quiet --allow-empty --message test"},
				"sh", "-ec", row.prepare+"\nscripts/check-release $TAG")
			if row.reason == "" {
				require.NoError(t, err, output)
				return
			}
			require.Error(t, err, output)
			require.Contains(t, output, "error: ")
			require.Contains(t, output, row.reason)
		})
	}
}

func TestTheWorkflowsCommandsMakeASignedReleaseInARegistry(t *testing.T) {
	t.Parallel()
	needJq(t)
	key := newKey(t, "one phrase")
	origin := newRepository(t)
	origin.trust(t, key)
	origin.git(t, "tag", "v"+version(t))
	clone, temp, address := origin.clone(t), t.TempDir(), registry(t)
	outputs := filepath.Join(temp, "outputs")
	ran := 0
	for _, step := range workflows(t)["release.yaml"].Jobs["release"].Steps {
		if step.Run == "" || service.MatchString(step.Run) {
			continue
		}
		ran++
		command := strings.Replace(step.Run, `scripts/push "oci://$REPOSITORY"`, `scripts/push "oci://$REPOSITORY" --plain-http`, 1)
		env := []string{"GITHUB_REF_NAME=v" + version(t), "RUNNER_TEMP=" + temp, "GITHUB_OUTPUT=" + outputs, "REPOSITORY=" + address + "/charts"}
		if step.Env["CHART_SIGNING_KEY"] != nil {
			output, err := clone.run(t, append(env, "CHART_SIGNING_KEY="), "bash", "-eo", "pipefail", "-c", command)
			require.Error(t, err)
			require.Contains(t, output, "CHART_SIGNING_KEY: is not a secret of the environment release")
			env = append(env, "CHART_SIGNING_KEY="+key.secret, "CHART_SIGNING_PASSPHRASE=one phrase")
		}
		output, err := clone.run(t, env, "bash", "-eo", "pipefail", "-c", command)
		require.NoError(t, err, "%s: %s", step.Name, output)
	}
	require.Equal(t, 3, ran, "steps that are commands of ours")

	require.Contains(t, read(t, filepath.Join(temp, "notes.md")), key.fingerprint)
	made, err := filepath.Glob(clone.path(".package/*"))
	require.NoError(t, err)
	require.Len(t, made, 4)
	require.FileExists(t, clone.path(".package/istio-os-init.cdx.json"), "what the attestation takes")

	digest := strings.TrimSpace(strings.TrimPrefix(read(t, outputs), "digest="))
	require.Regexp(t, `^sha256:[0-9a-f]{64}$`, digest)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+address+"/v2/charts/istio-os-init/manifests/"+digest, nil)
	require.NoError(t, err)
	request.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json")
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	_ = response.Body.Close()
	require.Equal(t, http.StatusOK, response.StatusCode)

	push := func() (string, error) {
		return clone.run(t, nil, "scripts/push", "oci://"+address+"/charts", "--plain-http")
	}
	output, err := push()
	require.NoError(t, err, output)
	require.Equal(t, "digest="+digest+"\n", output, "the job is run again")

	clone.replace(t, filepath.Join(chartDir, "values.yaml"), "backend: auto", "backend: legacy")
	clone.commit(t)
	output, err = clone.run(t, nil, "make", "package")
	require.NoError(t, err, output)
	output, err = push()
	require.Error(t, err)
	require.Contains(t, output, "error: oci://"+address+"/charts has another istio-os-init-"+version(t)+".tgz")

	require.NoError(t, os.RemoveAll(clone.path(".package")))
	output, err = push()
	require.Error(t, err, "no package: %s", output)
}
