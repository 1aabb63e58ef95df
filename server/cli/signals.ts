/** Resolves with the first SIGINT or SIGTERM; a second one ends the process at once. */
export function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((done) => {
    const heard = (signal: NodeJS.Signals): void => {
      process.off('SIGINT', heard)
      process.off('SIGTERM', heard)
      process.once('SIGINT', () => process.exit(130))
      process.once('SIGTERM', () => process.exit(143))
      done(signal)
    }
    process.on('SIGINT', heard)
    process.on('SIGTERM', heard)
  })
}
