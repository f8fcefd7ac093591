package store

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/ClickHouse/ch-go"
	"github.com/ClickHouse/clickhouse-go/v2"
)

// nativeSender sends blocks over ClickHouse's own protocol, through a client
// that takes columns as they are.
type nativeSender struct {
	addrs   []string
	options ch.Options
	idle    chan *ch.Client
}

// maxIdle bounds the connections that wait for the next insert.
const maxIdle = 8

func newNativeSender(o *clickhouse.Options) *nativeSender {
	s := &nativeSender{
		addrs: o.Addr,
		options: ch.Options{
			Database:    o.Auth.Database,
			User:        o.Auth.Username,
			Password:    o.Auth.Password,
			DialTimeout: o.DialTimeout,
			TLS:         o.TLS,
			ClientName:  "lethe",
			ReadTimeout: ch.NoTimeout, // an insert answers when it is done; the context bounds it
		},
		idle: make(chan *ch.Client, maxIdle),
	}
	if c := o.Compression; c != nil {
		switch c.Method {
		case clickhouse.CompressionLZ4:
			s.options.Compression = ch.CompressionLZ4
		case clickhouse.CompressionZSTD:
			s.options.Compression = ch.CompressionZSTD
		}
	}
	return s
}

func (s *nativeSender) send(ctx context.Context, b *block, order []uint32, settings clickhouse.Settings) error {
	client, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer s.give(client)
	query := ch.Query{Input: b.input(order)}
	query.Body = b.statement(query.Input) + " VALUES"
	for key, value := range settings {
		query.Settings = append(query.Settings, ch.Setting{Key: key, Value: fmt.Sprint(value), Important: true})
	}
	return client.Do(ctx, query)
}

// take returns a waiting connection, or dials the servers in turn.
func (s *nativeSender) take(ctx context.Context) (*ch.Client, error) {
	for {
		select {
		case c := <-s.idle:
			if !c.IsClosed() {
				return c, nil
			}
			continue
		default:
		}
		break
	}
	var failed error
	for _, addr := range s.addrs {
		o := s.options
		o.Address = addr
		if _, _, err := net.SplitHostPort(addr); err != nil {
			o.Address = net.JoinHostPort(addr, "9000")
		}
		c, err := ch.Dial(ctx, o)
		if err == nil {
			return c, nil
		}
		failed = err
	}
	if failed == nil {
		failed = errors.New("no address")
	}
	return nil, failed
}

// give keeps a connection for the next insert. The client closes a connection
// itself when a query on it was broken off.
func (s *nativeSender) give(c *ch.Client) {
	if c.IsClosed() {
		return
	}
	select {
	case s.idle <- c:
	default:
		c.Close()
	}
}

func (s *nativeSender) close() error {
	var errs []error
	for {
		select {
		case c := <-s.idle:
			errs = append(errs, c.Close())
		default:
			return errors.Join(errs...)
		}
	}
}
