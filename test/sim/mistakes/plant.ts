import { execFile } from 'node:child_process'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import type { Mistake } from './mistake.ts'

export interface Found {
  /** Seeds that were run until one failed. */
  readonly seeds: number
  readonly failure:
    | { readonly seed: number; readonly invariant: string; readonly message: string }
    | undefined
}

const root = resolve(import.meta.dirname, '../../..')
const copied = [
  'schema',
  'src',
  'sync',
  'server',
  'test/sim',
  'test/support',
  'package.json',
  'tsconfig.json',
]

/** Plants a mistake into a copy of the source and runs the simulator there. Throws where its place is not found. */
export async function plant({
  name,
  edits,
  changesStoreSchema,
  skew = false,
  from = 1,
  seeds,
}: Mistake): Promise<Found> {
  const folder = mkdtempSync(join(tmpdir(), 'agentdb-mistake-'))
  try {
    for (const part of copied) cpSync(join(root, part), join(folder, part), { recursive: true })
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'))
    for (const { file, find, replace } of edits) {
      const path = join(folder, file)
      const parts = readFileSync(path, 'utf8').split(find)
      if (parts.length !== 2)
        throw new Error(
          `«${name}» must be planted anew: ${file} has its place ${parts.length - 1} times:\n${find}`,
        )
      writeFileSync(path, parts.join(replace))
    }
    if (changesStoreSchema === true) await tsx(folder, ['test/support/write-migrations.ts'])
    const range = ['--from', String(from), '--seeds', String(seeds)]
    const args = ['test/sim/main.ts', ...range, '--json', ...(skew ? ['--skew'] : [])]
    const { seeds: run, failures } = JSON.parse(await tsx(folder, args)) as {
      seeds: number
      failures: NonNullable<Found['failure']>[]
    }
    return { seeds: run, failure: failures[0] }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Standard output; a status of 1 says that a seed failed, which is what is hoped for. */
function tsx(folder: string, args: readonly string[]): Promise<string> {
  return new Promise((done, fail) => {
    execFile(
      process.execPath,
      ['--import', 'tsx', ...args],
      { cwd: folder, maxBuffer: 64 * 1024 * 1024 },
      (error, stdout, stderr) => {
        if (error !== null && error.code !== 1) fail(new Error(`${error.message}\n${stderr}`))
        else done(stdout)
      },
    )
  })
}
