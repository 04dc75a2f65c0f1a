// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"context"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// secretForms are lines with a secret for each %s.
var secretForms = []struct{ form, secret string }{
	{"INFO connected to postgres://orders:%s@db.internal:5432/orders", "tr0ubadour&3"},
	{"INFO connected to postgres://orders:%s@db.internal/orders?sslmode=off", "zwqmxvbnk"},
	{"WARN retrying redis://:%s@cache:6379/0", "Qz7pLmx2Wv"},
	{"ERROR mysql dsn app:%s@tcp(db:3306)/shop refused", "vXq81mmZkd"},
	{"INFO mongodb+srv://root:%s@cluster0.example.net/admin opened", "bHq!zz91kfQ"},
	{"INFO GET https://bob:%s@example.com/a 200", "kTr9pWq3"},
	{"INFO GET /callback?code=%s&state=x 302", "4f0AfJohXkq9vQmTz"},
	{"DEBUG Authorization: Bearer %s", "ya29kQ8vBv2nMxTq7ZrWs"},
	{"DEBUG Authorization: Basic %s", base64.StdEncoding.EncodeToString([]byte("bob:Wq7zkpvmTx"))},
	{"DEBUG headers {authorization: [Bearer %s]}", "Jq3mTz0pVx8kLw5nRb"},
	{`{"level":"info","msg":"login","user":"bob","password":"%s"}`, "xkqzvwpmnt"},
	{`{"level":"info","msg":"header X-Api-Key: %s"}`, "d3k9QmZx71vbTpLw"},
	{`level=warn msg="token refused" token=%s`, "Zt5qLx9mWk2vBn8p"},
	{"INFO password=%s", "qzxvkwjmpt"},
	{"INFO set passwd: %s for bob", "Wkq2zzTvxm"},
	{"WARN client_secret=%s is old", "mQx7Tz1Lw9kVb3"},
	{"INFO aws key %s", "AKIAQX7ZTWLMKVBN2PRS"},
	{"INFO aws_secret_access_key = %s", "wJalrQXUtnFEMI/K7MDENG/bPxRfiCYqzKEYxTm"},
	{"INFO jwt %s", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJxenh2a3cifQ.dBjftJeZ4CVPmB92K27uhbUJU1p1rwW1gFWFOEjXkq0"},
	{"INFO session cookie: sid=%s; Path=/", "s3Qk9zVx7mTw1pLb"},
	{"INFO mail to %s was sent", "zacharias.quuxfield@exampleshop.org"},
	{"INFO user <%s> signed in", "qwimby.vortzel@mailhaus.example"},
	{"INFO charged card %s", "4929381776205543"},
	{"INFO charged card %s for 12.50 EUR", "5425 2334 3010 9903"},
	{"INFO charged card %s again", "3714-4963-5398-4310"},
	{"INFO iban %s", "DE89370400440532013000"},
	{"INFO github token %s", "ghp_xQ7zTw2kLm9vBp4nRs8dFg1hJc3eYa6uMi5o"},
	{"INFO slack %s", "xoxb-294857610293-QzXvKwJmPtRbLn7sWdFg"},
	{"INFO key sk-%s used", "Tq8zXv2mWk5pLb9nRs3dFg7hJc1eYa4uMi6oZq0xVw"},
	{"INFO reset link https://example.com/reset/%s", "q9Xz7vTk2mWpL5bN"},
	{"INFO one time code %s", "804513"},
	{"INFO peer %s came", "10.211.55.183"},
	{"INFO ssh-rsa %s bob@host", "AAAAB3NzaC1yc2EAAAADAQABAAABgQDqzXvKwJ7mPtRbLn"},
	{"INFO export DB_PASSWORD='%s'", "vqzKwx!mTp"},
	{"INFO file %s was read", "/home/quentinzork/private-notes"},
}

// makeSecrets has two containers: no more than 30 new patterns of one are told at once.
func (s *logScene) makeSecrets(ctx context.Context, t *testing.T) {
	t.Helper()
	for half, name := range []string{"secrets", "more-secrets"} {
		w := s.createDocker(ctx, t, "e2e-"+name, "each /texts/"+name+"; rest")
		w.unknown = true
		for i, one := range secretForms {
			line := strings.Replace(fmt.Sprintf("2026-11-21T10:00:00Z "+one.form, one.secret), "2026-11-21T10:00:00Z {", "{", 1)
			for range 1 + i/2%3 { // what varies is seen better when there is more of it
				if i%2 == half {
					w.messages = append(w.messages, message{text: line})
				}
			}
		}
		s.write(t, name, text(w.messages))
	}
}

// secretParts are what must not be found of a secret.
func secretParts(secret string) []string {
	parts := []string{secret}
	for _, part := range strings.FieldsFunc(secret, func(r rune) bool { return strings.ContainsRune(" -./@&!_=", r) }) {
		if len(part) > 3 && part != "home" && part != "example" && part != "xoxb" {
			parts = append(parts, part)
		}
	}
	return parts
}

// hexDigits may be in the middle of any id or number.
var hexDigits = regexp.MustCompile(`^[0-9a-f]+$`)

// grepPart returns the lines that contain part of a secret.
func grepPart(all, part string) string {
	if !hexDigits.MatchString(part) {
		return grep(all, part)
	}
	alone := regexp.MustCompile(`(^|[^0-9a-zA-Z.])` + part + `($|[^0-9a-zA-Z])`)
	var b strings.Builder
	for line := range strings.Lines(grep(all, part)) {
		if alone.MatchString(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// checkSecrets looks for them in all that was ever shown, and in all records but the messages that were asked for.
func (s *logScene) checkSecrets(ctx context.Context, t *testing.T) {
	t.Helper()
	patterns := 0
	eventually(ctx, t, 10*time.Second, "messages with secrets", func() (err error) {
		patterns, err = s.countSecrets(t)
		return err
	})
	shown := s.seen.shown()
	records, err := s.sink.records()
	if err != nil {
		t.Error(err)
	}
	for _, r := range records {
		if r.event != "container.log.message" {
			shown = append(shown, r.body)
		}
		shown = append(shown, fmt.Sprint(r.attributes, r.resource))
	}
	all := strings.Join(shown, "\n")
	if !strings.Contains(all, "aws key") || !strings.Contains(all, "charged card") {
		t.Error("the words of templates are not shown")
	}
	for _, one := range secretForms {
		for _, part := range secretParts(one.secret) {
			if lines := grepPart(all, part); lines != "" {
				t.Errorf("%q of %q is shown:\n%s", part, one.form, lines)
			}
		}
	}
	t.Logf("%d records of new patterns, %d texts shown", patterns, len(shown))
}

// countSecrets returns an error until all messages are counted, and the number of records of their patterns.
func (s *logScene) countSecrets(t *testing.T) (patterns int, err error) {
	t.Helper()
	for _, w := range s.writers {
		if !w.unknown {
			continue
		}
		for _, id := range identities(t) {
			if err := s.seen.want(id, w, len(w.messages)); err != nil {
				return 0, err
			}
		}
		of, err := s.sink.recordsOf(identities(t)[1], w.who)
		if err != nil {
			return 0, err
		}
		patterns += len(of["container.log.pattern"])
	}
	if patterns < len(secretForms)*3/4 { // some forms are one pattern
		return 0, fmt.Errorf("%d records of new patterns", patterns)
	}
	return patterns, nil
}
