// Compiles every *.sol here into a .json of the same name: see README.md.
import { createRequire } from 'node:module'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'

const here = new URL('.', import.meta.url)
const solc = createRequire(`${process.cwd()}/`)('solc')
const names = readdirSync(here).filter((name) => name.endsWith('.sol')).sort()
const input = {
  language: 'Solidity',
  sources: Object.fromEntries(names.map((name) => [name, { content: readFileSync(new URL(name, here), 'utf8') }])),
  settings: {
    evmVersion: 'shanghai',
    optimizer: { enabled: true, runs: 200 },
    metadata: { appendCBOR: false },
    outputSelection: { '*': { '*': ['abi', 'evm.bytecode.object', 'evm.methodIdentifiers'] } },
  },
}
const { contracts, errors = [] } = JSON.parse(solc.compile(JSON.stringify(input)))
for (const error of errors) console.error(error.formattedMessage)
if (errors.some((error) => error.severity === 'error')) process.exit(1)
for (const name of names) {
  const contract = name.replace(/\.sol$/, '')
  const { abi, evm } = contracts[name][contract]
  const compiled = {
    contract,
    compiler: solc.version(),
    evmVersion: input.settings.evmVersion,
    bytecode: `0x${evm.bytecode.object}`,
    selectors: evm.methodIdentifiers,
    abi,
  }
  writeFileSync(new URL(`${contract}.json`, here), `${JSON.stringify(compiled, null, 1)}\n`)
}
