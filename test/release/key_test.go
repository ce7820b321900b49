package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOnlyTheRepositorysKeySigns(t *testing.T) {
	t.Parallel()
	ours, others := newKey(t, ""), newKey(t, "")
	r := newRepository(t)
	require.NoError(t, os.RemoveAll(r.path("ci/signing-key.asc")))
	for _, row := range []struct {
		name    string
		content string // of signing-key.asc; empty: there is none
		reason  string
	}{
		{"no key", "", "ci/signing-key.asc is missing: no key may sign a release"},
		{"another key", others.armored, "CHART_SIGNING_KEY is the key " + ours.fingerprint + ", and ci/signing-key.asc is " + others.fingerprint},
		{"no OpenPGP", "ssh-ed25519 AAAA", "ci/signing-key.asc is no OpenPGP public key"},
		{"two keys", ours.armored + others.armored, "ci/signing-key.asc contains 2 keys"},
		{"a secret key", ours.secret, "ci/signing-key.asc contains a secret key"},
		{"an expired key", newKey(t, "", "--faked-system-time", "20200101T000000").armored, "which has expired"},
		{"a revoked key", ours.revoked(t), "ci/signing-key.asc contains " + ours.fingerprint + ", which is revoked"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.content != "" {
				r.write(t, "ci/signing-key.asc", row.content)
			}
			to := t.TempDir()
			output, err := r.run(t, []string{"CHART_SIGNING_KEY=" + ours.secret}, "scripts/package", to)
			require.Error(t, err, output)
			require.Contains(t, output, "error: ")
			require.Contains(t, output, row.reason)
			made, err := os.ReadDir(to)
			require.NoError(t, err)
			require.Empty(t, made)
		})
	}
}

// key is an OpenPGP key of the test's, in a home of its own.
type key struct {
	home        string
	secret      string // armored, as the environment has it
	armored     string // the public key, as signing-key.asc has it
	public      string // the keyring's path, as helm verify wants it
	fingerprint string
}

// newKey makes a key that expires after a day. Options are gpg's, for making it.
func newKey(t *testing.T, passphrase string, options ...string) key {
	t.Helper()
	if _, err := exec.LookPath("gpg"); err != nil {
		t.Skip("NOT PROVEN: that a package can be signed, since there is no gpg. Debian: apt-get install gnupg; make test installs it as root.")
	}
	home, err := os.MkdirTemp("", "gpg") // short: the path of its agent's socket must be
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "all").Run()
		_ = os.RemoveAll(home)
	})
	k := key{home: home, public: filepath.Join(home, "public.gpg")}
	common := []string{"--pinentry-mode", "loopback", "--passphrase", passphrase}
	k.gpg(t, append(append(common, options...), "--quick-generate-key", "test <test@example.com>", "ed25519", "sign", "1d")...)
	k.armored = k.gpg(t, "--armor", "--export")
	k.secret = k.gpg(t, append(common, "--armor", "--export-secret-keys")...)
	require.NoError(t, os.WriteFile(k.public, []byte(k.gpg(t, "--export")), 0o600))
	_, listed, _ := strings.Cut(k.gpg(t, "--with-colons", "--list-keys"), "\nfpr:::::::::")
	k.fingerprint, _, _ = strings.Cut(listed, ":")
	require.Len(t, k.fingerprint, 40)
	return k
}

// revoked returns the armored public key after its revocation, which a second home keeps from the key itself.
func (k key) revoked(t *testing.T) string {
	t.Helper()
	revocation := read(t, filepath.Join(k.home, "openpgp-revocs.d", k.fingerprint+".rev"))
	// gpg writes a colon before the header, against accidents.
	_, revocation, _ = strings.Cut(revocation, ":-----")
	other := key{home: t.TempDir()}
	for name, content := range map[string]string{"key": k.armored, "revocation": "-----" + revocation} {
		require.NoError(t, os.WriteFile(filepath.Join(other.home, name), []byte(content), 0o600))
	}
	other.gpg(t, "--import", filepath.Join(other.home, "key"))
	other.gpg(t, "--import", filepath.Join(other.home, "revocation"))
	return other.gpg(t, "--armor", "--export")
}

// gpg runs gpg in the key's home and returns what it prints.
func (k key) gpg(t *testing.T, args ...string) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "gpg", append([]string{"--homedir", k.home, "--batch", "--quiet"}, args...)...).Output()
	require.NoError(t, err, args)
	return string(output)
}
