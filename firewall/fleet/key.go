// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/policy"
)

// The one line of a key's file begins so.
const (
	privateMark = "portcullis-fleet-private"
	publicMark  = "portcullis-fleet-public"
)

// KeyID names a public key: the beginning of its SHA-256.
type KeyID string

// PublicKey verifies what is signed.
type PublicKey struct {
	ID   KeyID
	key  ed25519.PublicKey
	Path string // of the file that it came from
}

// PrivateKey signs.
type PrivateKey struct {
	ID  KeyID
	key ed25519.PrivateKey
}

// Public returns the key that verifies what this one signs.
func (k *PrivateKey) Public() PublicKey { return newPublicKey(k.key.Public().(ed25519.PublicKey)) }

func newPublicKey(key ed25519.PublicKey) PublicKey {
	sum := sha256.Sum256(key)
	return PublicKey{ID: KeyID(hex.EncodeToString(sum[:8])), key: key}
}

// String returns the line that stands for the key in a file.
func (k PublicKey) String() string {
	return publicMark + " " + base64.StdEncoding.EncodeToString(k.key)
}

// GenerateKey returns a new key.
func GenerateKey() (*PrivateKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return &PrivateKey{newPublicKey(public).ID, private}, nil
}

// PublicPath returns where the public key is that belongs to a private one: fleet.pub beside fleet.key.
func PublicPath(private string) string {
	return strings.TrimSuffix(private, filepath.Ext(private)) + ".pub"
}

// Save writes a key into a file that only its owner may read, and the public one beside it. It overwrites neither.
func (k *PrivateKey) Save(path string) error {
	public := PublicPath(path)
	if public == path {
		return fmt.Errorf("%s is the name of the public key: name the private one fleet.key", path)
	}
	for _, p := range []string{path, public} {
		if _, err := os.Lstat(p); err == nil {
			return fmt.Errorf("%s is there already: a key that hosts trust is not overwritten; name another file", p)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := saveNew(path, privateMark+" "+base64.StdEncoding.EncodeToString(k.key.Seed())+"\n", 0o600); err != nil {
		return err
	}
	if err := saveNew(public, k.Public().String()+"\n", 0o644); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func saveNew(path, text string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// ReadPrivateKey reads the file of a private key, which nobody but its owner may read.
func ReadPrivateKey(path string) (*PrivateKey, error) {
	text, err := policy.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o), who could open any port of the fleet: run \"chmod 600 %s\", and make a new key if somebody may have read it", path, info.Mode().Perm(), path)
	}
	if err := savefile.Check(path); err != nil {
		return nil, fmt.Errorf("the private key is not trusted: %w", err)
	}
	fields := strings.Fields(string(text))
	if len(fields) == 2 && fields[0] == publicMark {
		return nil, fmt.Errorf("%s is a public key: name the private one", path)
	}
	if len(fields) != 2 || fields[0] != privateMark {
		return nil, fmt.Errorf("%s is no key: \"portcullis fleet keygen --out fleet.key\" makes one", path)
	}
	seed, err := base64.StdEncoding.DecodeString(fields[1])
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s is damaged: take the copy of it that you keep", path)
	}
	key := ed25519.NewKeyFromSeed(seed)
	return &PrivateKey{newPublicKey(key.Public().(ed25519.PublicKey)).ID, key}, nil
}

// ReadPublicKeys reads a file of public keys, one a line, that nobody else may change.
func ReadPublicKeys(path string) ([]PublicKey, error) {
	text, err := policy.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the public key: %w", err)
	}
	if err := savefile.Check(path); err != nil {
		return nil, fmt.Errorf("the public key is not trusted: %w", err)
	}
	var keys []PublicKey
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if fields[0] == privateMark {
			return nil, fmt.Errorf("%s:%d: this is a private key, which belongs on no host: name fleet.pub", path, n)
		}
		key, err := parsePublicKey(fields)
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		key.Path = path
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: there is no key in it: copy fleet.pub, which \"portcullis fleet keygen\" has written", path)
	}
	return keys, nil
}

func parsePublicKey(fields []string) (PublicKey, error) {
	if len(fields) >= 2 && fields[0] == publicMark {
		if key, err := base64.StdEncoding.DecodeString(fields[1]); err == nil && len(key) == ed25519.PublicKeySize {
			return newPublicKey(key), nil
		}
	}
	return PublicKey{}, errors.New("this is no public key: a line of fleet.pub is \"" + publicMark + "\" and 44 characters")
}
