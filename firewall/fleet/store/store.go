// SPDX-License-Identifier: Apache-2.0

// Package store says what hosts of a fleet share, whoever carries it: small objects, each under a key. A store is not
// trusted with more than that it carries. What makes a policy is signed, and is verified by each host.
//
// The keys of a fleet are
//
//	groups/G/current    which bundle the hosts of a group run: its digest and serial, signed
//	bundles/DIGEST      a bundle, which never changes
//	lists/DIGEST        a list of networks that a bundle names, which never changes
//	hosts/NAME/status   what the host says of itself, written by that host alone
//	hosts/NAME/present  there as long as the host is, by Announce, and never a matter of policy
//	bans/G/NAME         whom a host, or an operator, bans for the group
//
// No key is the folder of another one.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// MaxSize is the most bytes that an object may have: a request to etcd has at most 1.5 MiB, key and frame included.
const MaxSize = 3<<19 - 16<<10

// DefaultTTL is how long the object of a host that is gone stays announced.
const DefaultTTL = 30 * time.Second

// Version is what an object was when it was read. Equal versions of a key mean equal objects. It says nothing about order.
type Version string

const (
	// Absent is the version of an object that is not there.
	Absent Version = ""
	// Any stands for every version.
	Any Version = "*"
)

// Object is what is under a key.
type Object struct {
	Value   []byte
	Version Version
}

// Changes are what is below a prefix, or what has changed there.
type Changes struct {
	// All says that Objects are all that there are, not only what has changed: so it is the first time, and when the
	// store no longer knows what has changed since.
	All     bool
	Objects map[string]Object
	Gone    []string
	// Since is what to ask with the next time.
	Since string
}

var (
	// ErrConflict is returned by Put where the object is no longer what it was put upon.
	ErrConflict = errors.New("somebody else has changed it meanwhile")
	// ErrReadOnly is returned where nothing can be written, such as by a plain web server.
	ErrReadOnly = errors.New("nothing can be written there")
	// ErrDenied is returned where the store does not let this user read or write a key.
	ErrDenied = errors.New("the store does not permit it")
	// ErrTooLarge is returned for an object of more than MaxSize bytes.
	ErrTooLarge = fmt.Errorf("an object of a fleet has at most %d bytes", MaxSize)
	// ErrUnsupported is returned for what a store cannot do, such as a plain web server that lists nothing.
	ErrUnsupported = errors.New("this store cannot do that")
)

// Store holds what a fleet shares. All methods may be called at the same time, and end when their context does. An error
// that is none of those above means that the store cannot be reached, and is worth another try.
type Store interface {
	// Get returns an object. The error is fs.ErrNotExist where there is none.
	Get(ctx context.Context, key string) (Object, error)
	// Put writes an object if what is there is of the given version: Any, Absent, or what was read. Else the error is ErrConflict.
	Put(ctx context.Context, key string, value []byte, on Version) error
	// Delete removes an object. There need not be one.
	Delete(ctx context.Context, key string) error
	// List returns the keys that begin with a prefix, which is "" or ends in "/", in order.
	List(ctx context.Context, prefix string) ([]string, error)
	// Watch returns an object once it is no longer of the given version, at once if it is not now. The error is
	// fs.ErrNotExist when it has been removed. It asks a store that cannot be reached again and again, or returns why.
	Watch(ctx context.Context, key string, version Version) (Object, error)
	// Changes returns what has changed below a prefix, which ends in "/", since an earlier answer, once something has. With
	// since "" it returns all that is there, at once.
	Changes(ctx context.Context, prefix, since string) (Changes, error)
	// Announce keeps an object there for as long as this process lives and the Presence is not closed. A while after
	// that, the object is gone.
	Announce(ctx context.Context, key string, value []byte) (Presence, error)
	// Close ends what the store does in the background. Presences are to be closed before.
	Close() error
}

// Presence is an object that is announced.
type Presence interface {
	// Update replaces the value.
	Update(ctx context.Context, value []byte) error
	// Close removes the object, if the store can be reached.
	Close() error
}

// Options say who asks a store. What a store does not need it does not look at.
type Options struct {
	CA          string        // file with the certificates that sign that of the server; "": those of the system
	Certificate string        // file with this user's certificate, whose common name is its name, or ""
	Key         string        // file with the key of that certificate
	TTL         time.Duration // how long the object of a process that is gone stays announced; 0: DefaultTTL
}

// Opener returns the store at a URL.
type Opener func(ctx context.Context, url string, o Options) (Store, error)

// Openers has a function for each scheme of URLs.
type Openers map[string]Opener

// Open returns the store at a URL. That it can be reached is not said.
func (o Openers) Open(ctx context.Context, url string, options Options) (Store, error) {
	scheme, _, found := strings.Cut(url, ":")
	open := o[scheme]
	if !found || open == nil {
		return nil, fmt.Errorf("%q is no place for a fleet: write dir:PATH, https://HOST/PATH or etcd://HOST:2379", url)
	}
	return open(ctx, url, options)
}

const (
	maxParts  = 4
	maxLength = 128 // of each part
)

// IsName reports whether a text can be the name of a host or a group, or another part of a key.
func IsName(name string) bool {
	for i, r := range name {
		plain := r >= 'a' && r <= 'z' || r >= '0' && r <= '9'
		if !plain && (i == 0 || r != '.' && r != '-') {
			return false
		}
	}
	return name != "" && len(name) <= maxLength
}

// CheckName returns why a text cannot be the name of what, such as "host".
func CheckName(what, name string) error {
	if IsName(name) {
		return nil
	}
	return fmt.Errorf("%q is no name of a %s: use lower-case letters, digits, dots and hyphens, at most %d, with a letter or digit first", name, what, maxLength)
}

// CheckKey returns why a text is no key.
func CheckKey(key string) error {
	parts := strings.Split(key, "/")
	if len(parts) < 2 || len(parts) > maxParts {
		return fmt.Errorf("%q is no key of a fleet", key)
	}
	for _, part := range parts {
		if !IsName(part) {
			return fmt.Errorf("%q is no key of a fleet", key)
		}
	}
	return nil
}

// CheckPrefix returns why a text cannot be what keys begin with.
func CheckPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	folder, found := strings.CutSuffix(prefix, "/")
	if !found || CheckKey(folder+"/x") != nil {
		return fmt.Errorf("%q is no folder of a fleet's keys", prefix)
	}
	return nil
}

// CheckPut returns why an object cannot be put.
func CheckPut(key string, value []byte) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if len(value) > MaxSize {
		return fmt.Errorf("%s has %d bytes: %w", key, len(value), ErrTooLarge)
	}
	return nil
}

// IsFinal reports whether it is of no use to ask a store again.
func IsFinal(err error) bool {
	for _, final := range []error{fs.ErrNotExist, ErrConflict, ErrReadOnly, ErrDenied, ErrTooLarge, ErrUnsupported} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}
