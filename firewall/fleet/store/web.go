// SPDX-License-Identifier: Apache-2.0

package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"
)

// What a client asks of "fleet serve" beside a plain GET. A plain web server knows none of it, and is asked again and again.
const (
	WaitHeader   = "Portcullis-Wait"   // seconds for which to wait for another object than that of If-None-Match
	WaitedHeader = "Portcullis-Waited" // in the answer of a server that does
	SinceQuery   = "since"             // of a folder: what has changed there
	TTLHeader    = "Portcullis-TTL"    // of an object that is announced
)

// Listing is what a server says of a folder.
type Listing struct {
	Keys    []string          `json:"keys"`
	All     bool              `json:"all"`
	Objects map[string][]byte `json:"objects"`
	Gone    []string          `json:"gone"`
	Since   string            `json:"since"`
}

const (
	webTimeout = 20 * time.Second
	webWait    = 50 * time.Second
	// plainPoll is how often a web server is asked that cannot wait, more or less: hosts are not to ask at the same time.
	plainPoll = 15 * time.Second
	// maxListing bounds what is believed of a folder: the bans of ten thousand hosts.
	maxListing = 256 << 20
)

// pingTime is for how long a server may be silent, and then for how long it may not answer.
var pingTime = 10 * time.Second

// Web is a web server: "fleet serve", or any other to be read only.
type Web struct {
	base   *url.URL
	client *http.Client
	ttl    time.Duration
}

// OpenWeb is the [Opener] of https://HOST/PATH. Nothing is asked of a proxy: hosts must not depend on what an environment says.
func OpenWeb(_ context.Context, address string, o Options) (Store, error) {
	base, err := url.Parse(address)
	if err != nil || base.Scheme != "https" || base.Host == "" || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("%q is no place for a fleet: write https://HOST/PATH", address)
	}
	if base.User != nil {
		return nil, errors.New("a fleet has no passwords: hosts show certificates, see \"certificate:\" in docs/fleet.md")
	}
	config, err := ClientTLS(o, base.Hostname())
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, IdleConnTimeout: 2 * webWait, TLSHandshakeTimeout: webTimeout,
		// Else all requests would go on to wait at a connection whose other end has vanished.
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingTime, PingTimeout: pingTime}}
	ttl := o.TTL
	if ttl == 0 {
		ttl = DefaultTTL
	}
	return &Web{base: base, ttl: ttl, client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the server of a fleet leads elsewhere: name that place")
	}}}, nil
}

// Close implements [Store].
func (w *Web) Close() error {
	w.client.CloseIdleConnections()
	return nil
}

func (w *Web) url(key string) string {
	u := *w.base
	u.Path = path.Join("/", u.Path, key)
	if (key == "" || strings.HasSuffix(key, "/")) && u.Path != "/" {
		u.Path += "/"
	}
	return u.String()
}

func (w *Web) do(ctx context.Context, method, address string, body []byte, header map[string]string, most int64) (*http.Response, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	request.Header.Set("User-Agent", "portcullis")
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := w.client.Do(request)
	if err != nil {
		return nil, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", address, err)
	}
	if int64(len(text)) > most {
		return nil, nil, fmt.Errorf("%s: %w", address, ErrTooLarge)
	}
	return response, text, nil
}

// answered returns what the status of an answer means.
func answered(address string, response *http.Response, text []byte) error {
	why := strings.TrimSpace(string(text[:min(len(text), 200)]))
	switch response.StatusCode {
	case http.StatusOK, http.StatusNoContent, http.StatusCreated, http.StatusNotModified:
		return nil
	case http.StatusNotFound, http.StatusGone:
		return fmt.Errorf("%s: %w", address, fs.ErrNotExist)
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%s: %w", address, ErrConflict)
	case http.StatusForbidden, http.StatusUnauthorized:
		return fmt.Errorf("%s: %w: %s", address, ErrDenied, why)
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return fmt.Errorf("%s: %w", address, ErrReadOnly)
	case http.StatusRequestEntityTooLarge:
		return fmt.Errorf("%s: %w", address, ErrTooLarge)
	}
	return fmt.Errorf("%s: the server answers %q", address, response.Status)
}

// Get implements [Store].
func (w *Web) Get(ctx context.Context, key string) (Object, error) {
	if err := CheckKey(key); err != nil {
		return Object{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, webTimeout)
	defer cancel()
	response, text, err := w.do(ctx, http.MethodGet, w.url(key), nil, nil, MaxSize)
	if err == nil {
		err = answered(w.url(key), response, text)
	}
	if err != nil {
		return Object{}, err
	}
	return Object{text, versionOf(text)}, nil
}

func etag(v Version) string { return `"` + string(v) + `"` }

// Put implements [Store].
func (w *Web) Put(ctx context.Context, key string, value []byte, on Version) error {
	header := map[string]string{}
	switch on {
	case Any:
	case Absent:
		header["If-None-Match"] = "*"
	default:
		header["If-Match"] = etag(on)
	}
	return w.put(ctx, key, value, header)
}

func (w *Web) put(ctx context.Context, key string, value []byte, header map[string]string) error {
	if err := CheckPut(key, value); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, webTimeout)
	defer cancel()
	response, text, err := w.do(ctx, http.MethodPut, w.url(key), value, header, MaxSize)
	if err != nil {
		return err
	}
	return answered(w.url(key), response, text)
}

// Delete implements [Store].
func (w *Web) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, webTimeout)
	defer cancel()
	response, text, err := w.do(ctx, http.MethodDelete, w.url(key), nil, nil, MaxSize)
	if err == nil {
		err = answered(w.url(key), response, text)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List implements [Store].
func (w *Web) List(ctx context.Context, prefix string) ([]string, error) {
	if err := CheckPrefix(prefix); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, webTimeout)
	defer cancel()
	l, err := w.listing(ctx, w.url(prefix), nil)
	if err != nil {
		return nil, err
	}
	return l.Keys, nil
}

const listingType = "application/vnd.portcullis.keys+json"

func (w *Web) listing(ctx context.Context, address string, header map[string]string) (*Listing, error) {
	if header == nil {
		header = map[string]string{}
	}
	header["Accept"] = listingType
	response, text, err := w.do(ctx, http.MethodGet, address, nil, header, maxListing)
	if err == nil {
		err = answered(address, response, text)
	}
	if errors.Is(err, fs.ErrNotExist) || err == nil && response.Header.Get("Content-Type") != listingType {
		return nil, fmt.Errorf("%s: a plain web server does not list what it has: %w", address, ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusNotModified {
		return nil, nil
	}
	l := new(Listing)
	if err := json.Unmarshal(text, l); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	for _, key := range l.Keys {
		if err := CheckKey(key); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// Watch implements [Store].
func (w *Web) Watch(ctx context.Context, key string, version Version) (Object, error) {
	if err := CheckKey(key); err != nil {
		return Object{}, err
	}
	for {
		header := map[string]string{WaitHeader: strconv.Itoa(int(webWait / time.Second))}
		if version != Absent {
			header["If-None-Match"] = etag(version)
		} else {
			header["If-None-Match"] = etag("absent")
		}
		bounded, cancel := context.WithTimeout(ctx, webWait+webTimeout)
		response, text, err := w.do(bounded, http.MethodGet, w.url(key), nil, header, MaxSize)
		cancel()
		if ctx.Err() != nil {
			return Object{}, ctx.Err()
		}
		if err == nil {
			err = answered(w.url(key), response, text)
		}
		switch absent := errors.Is(err, fs.ErrNotExist); {
		case absent && version != Absent:
			return Object{}, err
		case err != nil && !absent:
			return Object{}, err
		case err == nil && response.StatusCode != http.StatusNotModified && versionOf(text) != version:
			return Object{text, versionOf(text)}, nil
		}
		if response.Header.Get(WaitedHeader) == "" {
			if err := sleep(ctx, plainPoll/2+rand.N(plainPoll)); err != nil {
				return Object{}, err
			}
		}
	}
}

// Changes implements [Store].
func (w *Web) Changes(ctx context.Context, prefix, since string) (Changes, error) {
	if err := CheckPrefix(prefix); err != nil || prefix == "" {
		return Changes{}, errors.Join(err, errIfEmpty(prefix))
	}
	for {
		bounded, cancel := context.WithTimeout(ctx, webWait+webTimeout)
		l, err := w.listing(bounded, w.url(prefix)+"?"+SinceQuery+"="+url.QueryEscape(since), map[string]string{WaitHeader: strconv.Itoa(int(webWait / time.Second))})
		cancel()
		if ctx.Err() != nil {
			return Changes{}, ctx.Err()
		}
		if err != nil {
			return Changes{}, err
		}
		if l == nil {
			continue // nothing has changed for as long as the server waits
		}
		c := Changes{All: l.All, Objects: make(map[string]Object), Gone: l.Gone, Since: l.Since}
		for key, value := range l.Objects {
			if err := CheckKey(key); err != nil {
				return Changes{}, err
			}
			c.Objects[key] = Object{value, versionOf(value)}
		}
		return c, nil
	}
}

type webPresence struct {
	w     *Web
	key   string
	value chan []byte
	stop  func()
	done  chan struct{}
}

// Announce implements [Store].
func (w *Web) Announce(ctx context.Context, key string, value []byte) (Presence, error) {
	p := &webPresence{w: w, key: key, value: make(chan []byte, 1), done: make(chan struct{})}
	if err := p.announce(ctx, value); err != nil {
		return nil, err
	}
	ctx, p.stop = context.WithCancel(context.Background())
	go p.keep(ctx, value)
	return p, nil
}

func (p *webPresence) announce(ctx context.Context, value []byte) error {
	return p.w.put(ctx, p.key, value, map[string]string{TTLHeader: p.w.ttl.String()})
}

func (p *webPresence) keep(ctx context.Context, value []byte) {
	defer close(p.done)
	t := time.NewTicker(p.w.ttl / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case value = <-p.value:
		case <-t.C:
			_ = p.announce(ctx, value) // the next time, where it cannot be reached
		}
	}
}

// Update implements [Presence].
func (p *webPresence) Update(ctx context.Context, value []byte) error {
	select {
	case p.value <- value:
	case <-p.done:
	}
	return p.announce(ctx, value)
}

// Close implements [Presence].
func (p *webPresence) Close() error {
	p.stop()
	<-p.done
	return p.w.Delete(context.Background(), p.key)
}
