package catcher

import (
	"slices"
	"sync"
)

// mailbox keeps the newest messages, each once however often it is delivered.
type mailbox struct {
	mu      sync.Mutex
	letters []*letter // oldest first
	byKey   map[string]*letter
}

type letter struct {
	message Message
	key     string
}

func newMailbox() *mailbox {
	return &mailbox{byKey: make(map[string]*letter)}
}

// put keeps m, or counts one more delivery of the message with the same key. Together with the oldest message its key
// is forgotten.
func (b *mailbox) put(m Message, key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known := b.byKey[key]; known != nil {
		known.message.Deliveries++
		return
	}
	if len(b.letters) == maxMessages {
		delete(b.byKey, b.letters[0].key)
		b.letters = slices.Delete(b.letters, 0, 1)
	}
	l := &letter{message: m, key: key}
	b.letters = append(b.letters, l)
	if key != "" {
		b.byKey[key] = l
	}
}

func (b *mailbox) list() []Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	messages := make([]Message, 0, len(b.letters)) // an empty list in JSON, not null
	for _, l := range slices.Backward(b.letters) {
		messages = append(messages, l.message)
	}
	return messages
}
