// SPDX-License-Identifier: Apache-2.0

// Package crowdsec bans whom a CrowdSec has decided to ban: it follows the decisions of its local API, as CrowdSec's own
// bouncers do.
package crowdsec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

const (
	headerTime   = 30 * time.Second // for the API to begin an answer
	answerTime   = 5 * time.Minute  // and to end it
	longestReply = 256 << 20        // bytes
	mostDecided  = 1_500_000        // decisions in a list of an answer; a filter has room for less
	streamPath   = "/v1/decisions/stream"
)

// Decision is one of CrowdSec's (swagger: decision). Its words are whatever its scenarios and lists say.
type Decision struct {
	Duration  string `json:"duration"` // what is left
	Scenario  string `json:"scenario"`
	Scope     string `json:"scope"`
	Type      string `json:"type"`
	Value     string `json:"value"`
	Simulated bool   `json:"simulated"`
}

// Client asks a local API.
type Client struct {
	base    *url.URL
	key     string
	version string
	http    *http.Client
	longest int64 // bytes of an answer
	most    int   // decisions in a list of it
}

// NewClient returns a client of the API at an address, which is to know the key as a bouncer's.
func NewClient(address, key, version string) (*Client, error) {
	base, err := url.Parse(address)
	if err != nil || base.Scheme != "http" && base.Scheme != "https" || base.Host == "" || base.User != nil {
		return nil, fmt.Errorf("bad URL %q: write it as http://127.0.0.1:8080", address)
	}
	dialer := &net.Dialer{Timeout: headerTime}
	return &Client{base: base, key: key, version: version, longest: longestReply, most: mostDecided, http: &http.Client{
		// On a connection that is used again, a question whose answer was lost would be asked a second time, and what the
		// first answer said is not said again.
		Transport: &http.Transport{DialContext: dialer.DialContext, TLSHandshakeTimeout: headerTime, ResponseHeaderTimeout: headerTime, DisableKeepAlives: true},
		// A key is not to be sent elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       answerTime,
	}}, nil
}

// IsClear reports whether the key is sent over a network unencrypted.
func (c *Client) IsClear() bool {
	host := c.base.Hostname()
	addr, err := netip.ParseAddr(host)
	return c.base.Scheme == "http" && host != "localhost" && (err != nil || !addr.IsLoopback())
}

// ErrKey is returned when the API does not know the key.
var ErrKey = errors.New("CrowdSec refuses the key: \"cscli bouncers add portcullis\" makes one")

// Stream calls deleted and added for what has changed since the call before, or, at the start, added for all that there is.
func (c *Client) Stream(ctx context.Context, startup bool, deleted, added func(Decision) error) error {
	address := c.base.JoinPath(streamPath)
	query := url.Values{"startup": {fmt.Sprint(startup)}, "scopes": {"ip,range"}}
	address.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address.String(), nil)
	if err != nil {
		return err
	}
	request.Header.Set("X-Api-Key", c.key)
	request.Header.Set("User-Agent", "portcullis/"+c.version)
	reply, err := c.http.Do(request)
	if err != nil {
		return fmt.Errorf("ask CrowdSec: %w", err)
	}
	defer reply.Body.Close()
	switch {
	case reply.StatusCode == http.StatusForbidden || reply.StatusCode == http.StatusUnauthorized:
		return ErrKey
	case reply.StatusCode != http.StatusOK:
		return fmt.Errorf("ask CrowdSec: %s answers %q", c.base.Redacted(), reply.Status)
	}
	body := &io.LimitedReader{R: reply.Body, N: c.longest}
	if err := decode(body, c.most, deleted, added); err != nil {
		if body.N == 0 {
			err = fmt.Errorf("it is longer than %d bytes", c.longest)
		}
		return fmt.Errorf("read what CrowdSec at %s answers: %w", c.base.Redacted(), err)
	}
	return nil
}

// decode reads {"new": [...], "deleted": [...]}, of which each may be null, without having all of it in memory.
// Neither may have more than so many decisions.
func decode(r io.Reader, most int, deleted, added func(Decision) error) error {
	d := json.NewDecoder(r)
	if err := expect(d, '{'); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		var each func(Decision) error
		switch key {
		case "new":
			each = added
		case "deleted":
			each = deleted
		default:
			if err := d.Decode(new(json.RawMessage)); err != nil {
				return err
			}
			continue
		}
		if err := decodeList(d, most, each); err != nil {
			return err
		}
	}
	return expect(d, '}')
}

func decodeList(d *json.Decoder, most int, each func(Decision) error) error {
	switch token, err := d.Token(); {
	case err != nil:
		return err
	case token == nil:
		return nil
	case token != json.Delim('['):
		return fmt.Errorf("%v stands where a list should", token)
	}
	for n := 0; d.More(); n++ {
		if n == most {
			return fmt.Errorf("it has more than %d decisions", most)
		}
		var one Decision
		if err := d.Decode(&one); err != nil {
			return err
		}
		if err := each(one); err != nil {
			return err
		}
	}
	return expect(d, ']')
}

func expect(d *json.Decoder, want json.Delim) error {
	token, err := d.Token()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err == nil && token != want {
		err = fmt.Errorf("%.40v stands where %v should", token, want)
	}
	return err
}

// isBan reports whether a decision bans somebody by an address, and not a country or by a captcha.
func (d *Decision) isBan() bool {
	return strings.EqualFold(d.Type, "ban") && !d.Simulated && (strings.EqualFold(d.Scope, "ip") || strings.EqualFold(d.Scope, "range"))
}
