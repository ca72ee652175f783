// SPDX-License-Identifier: Apache-2.0

// Package fetch fetches lists of networks by HTTPS, and keeps the last good copy of each. What a server sends is believed
// only as far as it is a list: whoever controls it can name networks, and nothing else. What that does is for the policy to
// say: of a list in block he can have anybody dropped, of one that trust or a rule names he can have anybody let in as they
// let in. So such a list is taken only if each line of it is a network, and none a large part of the internet.
package fetch

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/portcullis-firewall/portcullis/firewall/savefile"
	"github.com/portcullis-firewall/portcullis/policy"
)

// Store is a directory with the last good copy of each list. Only its owner may read it.
type Store struct{ Dir string }

// Copy is the last good copy of a list.
type Copy struct {
	Text []byte
	// Confirmed is when the server last said that this is the list.
	Confirmed time.Time
	head
}

// head is the first line of a copy's file, behind a mark that makes it a comment of the list.
type head struct {
	URL          string `json:"url"`
	ETag         string `json:"etag,omitempty"`
	LastModified string `json:"last_modified,omitempty"`
	Networks     int    `json:"networks"`
}

const (
	headMark     = "# portcullis keeps this copy of a list: "
	maxValidator = 256     // bytes
	headRoom     = 8 << 10 // bytes that the head needs at most: twice a URL and two validators, if all has to be quoted
)

// ErrNoCopy is returned for a list that has not been fetched yet.
var ErrNoCopy = errors.New("it has not been fetched yet")

const copySuffix = ".list"

// Path returns where the copy of a list is.
func (s Store) Path(url string) string {
	sum := sha256.Sum256([]byte(url))
	return filepath.Join(s.Dir, hex.EncodeToString(sum[:16])+copySuffix)
}

// Read returns the copy of a list. The error is ErrNoCopy where there is none.
func (s Store) Read(url string) (*Copy, error) {
	path := s.Path(url)
	if s.Dir == "" {
		return nil, ErrNoCopy
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoCopy
	}
	if err != nil {
		return nil, err
	}
	data, err := policy.ReadListFile(path)
	if err != nil {
		return nil, err
	}
	if err := savefile.Check(path); err != nil {
		return nil, fmt.Errorf("its copy is not trusted: %w", err)
	}
	first, text, _ := bytes.Cut(data, []byte("\n"))
	object, ok := bytes.CutPrefix(first, []byte(headMark))
	c := &Copy{Text: text, Confirmed: info.ModTime()}
	if !ok || json.Unmarshal(object, &c.head) != nil || c.URL != url {
		return nil, fmt.Errorf("its copy %s is damaged: remove that file, and it is fetched anew", path)
	}
	return c, nil
}

// Confirmed returns when the server of a list last said that the copy is the list, without reading it.
func (s Store) Confirmed(url string) (time.Time, bool) {
	info, err := os.Stat(s.Path(url))
	if s.Dir == "" || err != nil {
		return time.Time{}, false
	}
	return info.ModTime(), true
}

// save makes a copy the last good one.
func (s Store) save(c *Copy) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	data := bytes.NewBuffer(make([]byte, 0, headRoom+len(c.Text)))
	data.WriteString(headMark)
	object := json.NewEncoder(data)
	object.SetEscapeHTML(false) // which takes six bytes for each &
	if err := object.Encode(c.head); err != nil {
		return err
	}
	if data.Len() > headRoom {
		return fmt.Errorf("its URL is longer than any list has: %.100s", c.URL)
	}
	data.Write(c.Text)
	return savefile.SavePrivate(s.Path(c.URL), data.Bytes())
}

// confirm records that a copy is the list still.
func (s Store) confirm(url string, at time.Time) error { return os.Chtimes(s.Path(url), at, at) }
