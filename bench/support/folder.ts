import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface Folder extends Disposable {
  /** A path in the folder. */
  file(name: string): string
}

/** A folder for the files of one run, gone afterwards. `TMPDIR` decides which disk is measured. */
export function temporaryFolder(): Folder {
  const path = mkdtempSync(join(tmpdir(), 'agentdb-bench-'))
  return {
    file: (name) => join(path, name),
    [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }),
  }
}
