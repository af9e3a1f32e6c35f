"""The container image: build it, push it, and copy what a recipe needs into a closed network.

Nothing here speaks to a registry itself: docker, buildah and skopeo do, with their own logins and
trust. Unverified: a build of the CUDA image, CodeBuild, ECR, and S3 other than its stand-in.
"""
