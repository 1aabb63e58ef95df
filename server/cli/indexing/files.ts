import { execFile } from 'node:child_process'
import { lstat, readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { isIgnored, readRules, type IgnoreRules } from './ignore.ts'

const run = promisify(execFile)

/** Output of `git ls-files` that is read; about a million paths. */
const LIST_BYTES_MAX = 256 * 1024 * 1024

/**
 * Paths of the files of a folder that git would look at, relative to it, with slashes, in order. Inside a repository git
 * itself is asked; elsewhere the `.gitignore` files are read, and `node_modules` is left out.
 */
export async function listFiles(folder: string): Promise<string[]> {
  const listed = (await byGit(folder)) ?? (await byWalk(folder, '', []))
  return listed.toSorted()
}

async function byGit(folder: string): Promise<string[] | undefined> {
  try {
    const { stdout } = await run(
      'git',
      ['-C', folder, 'ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', '.'],
      { maxBuffer: LIST_BYTES_MAX },
    )
    const paths = new Set(stdout.split('\0').filter((path) => path !== ''))
    const isFile = async (path: string): Promise<string[]> =>
      (await lstat(join(folder, path)).catch(() => undefined))?.isFile() === true ? [path] : []
    return (await Promise.all(Array.from(paths, isFile))).flat()
  } catch {
    // No repository, or no git.
    return undefined
  }
}

async function byWalk(
  folder: string,
  at: string,
  above: readonly IgnoreRules[],
): Promise<string[]> {
  const own = await readFile(join(folder, at, '.gitignore'), 'utf8').catch(() => undefined)
  const rules = own === undefined ? above : [...above, readRules(own, at)]
  const found: string[] = []
  for (const entry of await readdir(join(folder, at), { withFileTypes: true })) {
    const path = `${at}${entry.name}`
    if (entry.name === '.git' || entry.name === 'node_modules') continue
    if (isIgnored(path, entry.isDirectory(), rules)) continue
    if (entry.isDirectory()) found.push(...(await byWalk(folder, `${path}/`, rules)))
    else if (entry.isFile()) found.push(path)
  }
  return found
}
