// SPDX-License-Identifier: Apache-2.0

package fleet

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/portcullis-firewall/portcullis/firewall/fleet/store"
)

// kind is what a signature is for: one for a bundle is none for a pointer, nor for what another program signs.
type kind string

const (
	kindBundle  kind = "bundle"
	kindPointer kind = "pointer"
	kindBans    kind = "bans"
)

// String returns what it is called in a sentence.
func (k kind) String() string {
	if k == kindBans {
		return "list of bans"
	}
	return string(k)
}

// format is the version of what is signed. What an older version does not know it refuses.
const format = "1"

func (k kind) context() string { return "portcullis fleet " + string(k) + " " + format }

// ErrSignature is returned for what no key of the host has signed. In a folder that something fills it may be half of a file.
var ErrSignature = errors.New("it is not signed by a key that is trusted here")

// seal signs a body. Its first line says what it is, the second one who signs, and the body follows an empty one.
func seal(k kind, key *PrivateKey, body []byte) ([]byte, error) {
	sum := sha512.Sum512(body)
	signature, err := key.key.Sign(nil, sum[:], &ed25519.Options{Hash: crypto.SHA512, Context: k.context()})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n%s %s\n\n", k.context(), key.ID, base64.StdEncoding.EncodeToString(signature))
	b.Write(body)
	if b.Len() > store.MaxSize {
		return nil, fmt.Errorf("the %s has %d bytes: %w; give large lists a URL", k, b.Len(), store.ErrTooLarge)
	}
	return b.Bytes(), nil
}

// unseal returns the body, and whose signature it has.
func unseal(k kind, object []byte, keys []PublicKey) (body []byte, by KeyID, err error) {
	if len(object) > store.MaxSize {
		return nil, "", store.ErrTooLarge
	}
	head, body, found := bytes.Cut(object, []byte("\n\n"))
	first, second, two := strings.Cut(string(head), "\n")
	if !found || !two {
		return nil, "", fmt.Errorf("this is no %s, or half of one: %w", k, ErrSignature)
	}
	if first != k.context() {
		if strings.HasPrefix(first, "portcullis fleet "+string(k)+" ") {
			return nil, "", fmt.Errorf("the %s is of a newer format, %.60q: install a newer portcullis", k, first)
		}
		return nil, "", fmt.Errorf("this is no %s: %w", k, ErrSignature)
	}
	id, text, _ := strings.Cut(second, " ")
	signature, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(signature) != ed25519.SignatureSize {
		return nil, "", fmt.Errorf("the signature of the %s is damaged: %w", k, ErrSignature)
	}
	sum := sha512.Sum512(body)
	for _, key := range keys {
		if string(key.ID) != id {
			continue
		}
		if ed25519.VerifyWithOptions(key.key, sum[:], signature, &ed25519.Options{Hash: crypto.SHA512, Context: k.context()}) == nil {
			return body, key.ID, nil
		}
		return nil, "", fmt.Errorf("the signature of the %s, by key %s, is wrong: %w", k, key.ID, ErrSignature)
	}
	return nil, "", fmt.Errorf("the %s is signed by key %.20q: %w", k, id, ErrSignature)
}
