import type { StoredRow } from '../../schema/codec.ts'
import type { TableDefinition } from '../../schema/define.ts'
import type { Connection } from '../../src/internal-for-sync.ts'
import { encodeImage } from './image.ts'

/** Rows that go because the centre, which went back, has lost them: kept with their image until they come back. */
export class LostRows {
  readonly #connection: Connection
  readonly #healing: boolean
  #holdsAny: boolean

  /** `healing`: the scope is read again since the centre went back, so that what goes is what it lost. */
  constructor(connection: Connection, healing: boolean) {
    this.#connection = connection
    this.#healing = healing
    this.#holdsAny = connection.get('SELECT 1 FROM sync_lost LIMIT 1') !== undefined
  }

  goes(table: TableDefinition, image: StoredRow, at: string): void {
    if (!this.#healing) return
    this.#holdsAny = true
    this.#connection.run(
      'INSERT INTO sync_lost (id, tbl, image, at) VALUES (?, ?, ?, ?) ON CONFLICT (id, tbl) DO NOTHING',
      String(image['id']),
      table.number,
      encodeImage(image),
      at,
    )
  }

  cameBack(table: TableDefinition, id: string): void {
    if (!this.#holdsAny) return
    this.#connection.run('DELETE FROM sync_lost WHERE id = ? AND tbl = ?', id, table.number)
  }
}
