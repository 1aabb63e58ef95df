/** A typed event emitter. A handler that throws does not stop sync; the error surfaces as an uncaught one. */
export class Emitter<Events extends Record<string, unknown>> {
  readonly #handlers = new Map<keyof Events, Set<(event: never) => void>>()

  /** Returns a function that removes the handler. */
  on<K extends keyof Events>(name: K, handler: (event: Events[K]) => void): () => void {
    const handlers = this.#handlers.get(name) ?? new Set()
    this.#handlers.set(name, handlers)
    handlers.add(handler)
    return () => handlers.delete(handler)
  }

  /** Whether anyone hears of it; what costs something to tell need not be made for nobody. */
  has(name: keyof Events): boolean {
    return (this.#handlers.get(name)?.size ?? 0) > 0
  }

  emit<K extends keyof Events>(name: K, event: Events[K]): void {
    for (const handler of this.#handlers.get(name) ?? []) {
      try {
        ;(handler as (event: Events[K]) => void)(event)
      } catch (error) {
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }
}
