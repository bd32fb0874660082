"""The source document's vLLM program on a processor: two prompts, no server.

    .venv-vllm/bin/python data/recipes/vllm_offline.py FOLDER

FOLDER holds the weights: `python data/recipes/vllm_server.py --command` names it. What
was mended: the document never makes its `tokenizer`; replies here are short and greedy.
"""

import os
import sys

os.environ |= {  # vLLM reads these when it is imported
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # all in this process: starts sooner
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}

from vllm import LLM, SamplingParams


def api_generate(llm: LLM, prompts: list[str], params: SamplingParams) -> list[str]:
    """Return the replies: the document's function, with a tokenizer."""
    tokenizer = llm.get_tokenizer()
    formatted = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False, add_generation_prompt=True,
        )
        for prompt in prompts
    ]  # fmt: skip
    outputs = llm.generate(formatted, params, use_tqdm=False)
    return [output.outputs[0].text.strip() for output in outputs]


def main(folder: str) -> None:
    """Print the document's two replies, and whether `LLM.chat` gives the same."""
    llm = LLM(
        model=folder,
        tensor_parallel_size=1,  # in how many GPUs each matrix is cut
        gpu_memory_utilization=0.8,  # a processor obeys VLLM_CPU_KVCACHE_SPACE instead
        enforce_eager=True,
        max_model_len=2048,
    )
    params = SamplingParams(temperature=0, max_tokens=32)
    prompts = [
        "Explain the benefits of renewable energy",
        "Write a Python function to calculate factorial",
    ]
    responses = api_generate(llm, prompts, params)
    for prompt, response in zip(prompts, responses, strict=True):
        print(f"Prompt: {prompt}")  # noqa: T201
        print(f"Response: {response}\n")  # noqa: T201
    conversations = [[{"role": "user", "content": prompt}] for prompt in prompts]
    outputs = llm.chat(conversations, params, use_tqdm=False)
    same = [output.outputs[0].text.strip() for output in outputs] == responses
    sys.stdout.write(f"LLM.chat, which renders the template itself: {same=}\n")


if __name__ == "__main__":
    main(sys.argv[1])
