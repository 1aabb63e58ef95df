import { execFile } from 'node:child_process'
import { lstat, readdir, readFile, realpath } from 'node:fs/promises'
import { dirname, join, relative, sep } from 'node:path'
import { promisify } from 'node:util'
import { AgentDBError } from '../../../schema/errors.ts'
import { isIgnored, readRules, type IgnoreRules } from './ignore.ts'

const run = promisify(execFile)

/** Output of `git ls-files` that is read; about a million paths. */
const LIST_BYTES_MAX = 256 * 1024 * 1024

/**
 * Paths of the files of a folder that git would look at, relative to it, with slashes, in order. Git itself is asked;
 * outside a repository, and where git is not installed, the ignore files are read, and `node_modules` is left out.
 *
 * @throws AgentDBError `INVALID_OPTION` where git will not say: what it ignores may be secret
 */
export async function listFiles(folder: string): Promise<string[]> {
  const listed = (await byGit(folder)) ?? (await byWalk(folder))
  return listed.toSorted()
}

/** Whether a file cannot be looked at now, for whatever reason but that it is gone. */
export async function isOutOfSight(folder: string, path: string): Promise<boolean> {
  return lstat(join(folder, path)).then(
    () => false,
    (error: NodeJS.ErrnoException) => error.code !== 'ENOENT' && error.code !== 'ENOTDIR',
  )
}

async function byGit(folder: string): Promise<string[] | undefined> {
  const stdout = await gitFiles(folder)
  if (stdout === undefined) return undefined
  const paths = new Set(stdout.split('\0').filter((path) => path !== ''))
  const isFile = async (path: string): Promise<string[]> =>
    (await lstat(join(folder, path)).catch(() => undefined))?.isFile() === true ? [path] : []
  return (await Promise.all(Array.from(paths, isFile))).flat()
}

/** A hook of git says where its repository is; the folder's is meant. Its messages are compared: in English. */
const gitVariables = {
  GIT_DIR: undefined,
  GIT_WORK_TREE: undefined,
  GIT_COMMON_DIR: undefined,
  GIT_INDEX_FILE: undefined,
  LC_ALL: 'C',
} as const

/** What git lists; undefined where there is no repository, or no git. */
async function gitFiles(folder: string): Promise<string | undefined> {
  const listing = ['ls-files', '-z', '--cached', '--others', '--exclude-standard', '--', '.']
  try {
    const { stdout } = await run('git', ['-C', folder, ...listing], {
      maxBuffer: LIST_BYTES_MAX,
      env: { ...process.env, ...gitVariables },
    })
    return stdout
  } catch (error) {
    const { code, stderr, message } = error as Error & { code?: unknown; stderr?: string }
    const said = stderr?.trim() || message
    if (code === 'ENOENT' || /^fatal: not a git repository/m.test(said)) return undefined
    throw new AgentDBError(
      'INVALID_OPTION',
      `git does not say what it ignores in ${folder}, so nothing was read; mend what it names and try again: ${said}`,
      { cause: error },
    )
  }
}

/** From the top of the repository down to the folder, whose files are listed: what is ignored above counts as well. */
async function byWalk(folder: string): Promise<string[]> {
  const place = await realpath(folder)
  const top = await topOf(place)
  const rules: IgnoreRules[] = []
  let at = ''
  for (const name of relative(top, place).split(sep)) {
    if (name === '') continue
    rules.push(...(await rulesIn(top, at)))
    if (isIgnored(`${at}${name}`, true, rules)) return []
    at += `${name}/`
  }
  return (await walk(top, at, rules)).map((path) => path.slice(at.length))
}

async function walk(top: string, at: string, above: readonly IgnoreRules[]): Promise<string[]> {
  const rules = [...above, ...(await rulesIn(top, at))]
  const found: string[] = []
  for (const entry of await readdir(join(top, at), { withFileTypes: true })) {
    const path = `${at}${entry.name}`
    if (entry.name === '.git' || entry.name === 'node_modules') continue
    if (isIgnored(path, entry.isDirectory(), rules)) continue
    if (entry.isDirectory()) found.push(...(await walk(top, `${path}/`, rules)))
    else if (entry.isFile()) found.push(path)
  }
  return found
}

/** The nearest folder with a `.git`, from a folder upwards; itself where there is none. */
async function topOf(folder: string): Promise<string> {
  for (let at = folder; ; at = dirname(at)) {
    const isTop = await lstat(join(at, '.git')).then(
      () => true,
      () => false,
    )
    if (isTop) return at
    if (dirname(at) === at) return folder
  }
}

/** What counts less comes first. */
async function rulesIn(top: string, at: string): Promise<IgnoreRules[]> {
  const rules: IgnoreRules[] = []
  for (const file of ['.git/info/exclude', '.gitignore']) {
    const text = await readFile(join(top, at, file), 'utf8').catch(() => undefined)
    if (text !== undefined) rules.push(readRules(text, at))
  }
  return rules
}
