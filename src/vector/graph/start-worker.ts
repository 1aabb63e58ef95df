import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { Worker } from 'node:worker_threads'

/**
 * Starts the thread of the graphs. From a build it is a JavaScript file like any other. From source it is TypeScript,
 * which a thread does not inherit the loader for: one is registered in it first.
 */
export function startGraphWorker(): Worker {
  const options = { execArgv: [], name: 'agentdb-graphs' }
  const { url } = import.meta
  if (!url.endsWith('.ts'))
    return new Worker(new URL('./graph-worker.js', import.meta.url), options)
  // `require` is shown the CommonJS twin, which looks for its hooks in the wrong place when it is imported.
  const twin = createRequire(url).resolve('tsx/esm/api')
  const loader = pathToFileURL(twin.replace(/\.cjs$/, '.mjs')).href
  const source = new URL('./graph-worker.ts', url).href
  return new Worker(
    `import(${JSON.stringify(loader)}).then(({ register }) => {
      register()
      return import(${JSON.stringify(source)})
    })`,
    { ...options, eval: true },
  )
}
